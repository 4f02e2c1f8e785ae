#!/usr/bin/env bash
# torchvision 0.29.1: FCOS gives a place to the larger of two boxes where their areas differ by less than some pixels, though the smallest is meant to win.
#
# Why it matters: the network learns the wrong object at such places. The areas are subtracted from 1e8 in single precision, whose neighbours
# are 8 there, so areas are compared in steps of 8 square pixels and the first of equal ones is taken: which object is learnt then depends on
# the order in which the boxes are written down. Small objects that overlap, as cells under a microscope, are hit most.
# Expected: the comment above the line in torchvision/models/detection/fcos.py says that the box of minimum area is matched where there are
# several, which is also what section 3.1 of the paper says (arXiv:1904.01355).
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import torch
import torchvision
from torch import nn
from torchvision.models.detection import FCOS

print("torchvision", torchvision.__version__)


class Backbone(nn.Module):
    out_channels = 32


net = FCOS(Backbone(), 3)
chosen = []
net.head.compute_loss = lambda targets, outputs, anchors, matched: chosen.append(matched[0].tolist())
anchor = torch.tensor([[16.0, 16.0, 24.0, 24.0]])  # one place, at (20, 20), of stride 8
for less in (0.1, 0.5, 1.0):
    larger, smaller = [10.0, 10.0, 30.0, 22.0], [10.0, 10.0, 30.0 - less, 22.0]
    for boxes in ([larger, smaller], [smaller, larger]):
        net.compute_loss([{"boxes": torch.tensor(boxes)}], {}, [anchor], [1, 0])
    got = [["larger", "smaller"][chosen[-2][0]], ["smaller", "larger"][chosen[-1][0]]]
    print(f"areas 240 and {240 - 12 * less:.1f}: the {got[0]} where the larger is written first, the {got[1]} otherwise")
    chosen.append(got)
print("1e8 minus both areas:", (1e8 - torch.tensor([240.0, 238.8])).tolist())
results = [c for c in chosen if isinstance(c[0], str)]
assert results[0] == ["larger", "smaller"]
assert results[-1] == ["smaller", "smaller"]

print("as found")
PY
