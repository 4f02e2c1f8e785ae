#!/usr/bin/env bash
# ensemble-boxes 1.0.9: soft_nms returns the scores that it was given, not those that soft suppression lowered.
#
# Why it matters: Soft-NMS is nothing but lowered scores (Bodla et al. 2017, arXiv:1704.04503, "decays the detection scores"). Here two
# equal boxes with 0.9 and 0.8 come back with 0.9 and 0.8, so average precision is as if nothing had been suppressed, and a threshold of 0.5
# keeps the duplicate. The lowered scores only decide what falls below `thresh`, and the order in the list.
# Expected: the reference says that the second result is "scores: confidence scores"; the paper's second one is 0.8 * exp(-1 / 0.5) = 0.108.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "ensemble-boxes==1.0.9" "numba==0.68.1" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
from ensemble_boxes import soft_nms

print("ensemble-boxes", version("ensemble-boxes"))
box = [0.1, 0.1, 0.5, 0.5]
for name, method in (("linear", 1), ("gaussian", 2)):
    boxes, scores, _ = soft_nms([[box, box]], [[0.9, 0.8]], [[0, 0]], method=method, iou_thr=0.5, sigma=0.5, thresh=0.0)
    print(f"{name:8} two equal boxes with 0.9 and 0.8 come back with {scores.tolist()}")
    if method == 2:
        print(f"         the paper's second score is {0.8 * np.exp(-1 / 0.5):.3f}")
        assert scores.tolist() == [0.9, 0.8]
_, scores, _ = soft_nms([[box, box]], [[0.9, 0.8]], [[0, 0]], method=2, sigma=0.5, thresh=0.2)
print("gaussian with thresh 0.2, which the lowered score does not reach:", scores.tolist())
assert scores.tolist() == [0.9]
print("as found")
PY
