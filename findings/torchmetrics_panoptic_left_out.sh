#!/usr/bin/env bash
# torchmetrics 1.9.0: PanopticQuality takes pixels that the *prediction* leaves out from the union, and does not count objects that the
# prediction mostly leaves out as missed. A model that answers nothing on the harder half of every picture gets PQ 1.
#
# Why it matters: panoptic models leave pixels out (unsure segments are dropped), so they are compared by a higher figure than COCO's own
# evaluation gives, the more the more they abstain. No message; allow_unknown_preds_category=True is the documented way to do it.
# Expected: PQ as in the paper that the class cites (Kirillov et al. 2019, arXiv:1801.00868, section 4.2, "Void labels" speaks of the
# ground truth's void pixels alone) and as in panopticapi's evaluation.py, which takes the pixels of the prediction that are void in the
# ground truth from the union, and counts every unmatched segment of the ground truth that is no crowd as missed.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "torchmetrics==1.9.0" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from torchmetrics.detection import PanopticQuality

print("torchmetrics", version("torchmetrics"), "torch", torch.__version__)
CAR, NOTHING = 1, 9


def pq(predicted: list[tuple[int, int]], truth: list[tuple[int, int]]) -> tuple[float, ...]:
    """PQ, SQ and RQ of one row of pixels, each (class, number of the object)."""
    metric = PanopticQuality({CAR}, set(), allow_unknown_preds_category=True, return_sq_and_rq=True)
    return tuple(metric(torch.tensor(predicted).view(1, 1, -1, 2), torch.tensor(truth).view(1, 1, -1, 2)).tolist())


two_cars = [(CAR, 1)] * 5 + [(CAR, 2)] * 5
one_left_out = pq([(CAR, 1)] * 5 + [(NOTHING, 0)] * 5, two_cars)
part_left_out = pq([(CAR, 1)] * 3 + [(NOTHING, 0)] * 2 + [(CAR, 2)] * 5, two_cars)
print("one of two cars left out:       PQ %.3f SQ %.3f RQ %.3f; by the definition 1/(1 + 1/2) = 0.667" % one_left_out)
print("two fifths of a car left out:   PQ %.3f SQ %.3f RQ %.3f; by the definition (3/5 + 1)/2 = 0.800" % part_left_out)
assert one_left_out == part_left_out == (1.0, 1.0, 1.0), (one_left_out, part_left_out)
print("as found")
PY
