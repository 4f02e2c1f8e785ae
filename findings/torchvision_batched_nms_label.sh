#!/usr/bin/env bash
# torchvision 0.29.1: batched_nms decides about two boxes of one class by the number of the class, and by how many other boxes there are.
#
# Why it matters: it adds (largest coordinate + 1) * class to all coordinates, in single precision, so boxes are rounded the more the higher
# the class number: at class 1000 of a picture of 1000 pixels to 1/16 of a pixel. Small boxes are then suppressed, or kept, against their
# IoU. Above 1000 boxes on the CPU another way is taken, which does not round: the same two boxes get another answer because a thousand
# boxes elsewhere were added.
# Expected: the reference says "Performs non-maximum suppression in a batched fashion. Each index value correspond to a category, and NMS
# will not be applied between elements of different categories"; nothing says that the number of a category matters.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import torch
import torchvision
from torchvision.ops import batched_nms, box_iou

print("torchvision", torchvision.__version__)
pair = torch.tensor([[10.0, 10.0, 14.0, 14.0], [11.33, 10.0, 15.33, 14.0], [900.0, 900.0, 1000.0, 1000.0]])
scores = torch.tensor([0.9, 0.8, 0.7])
print(f"two boxes of one class with IoU {box_iou(pair[:1], pair[1:2]).item():.4f}, threshold 0.5")
kept = {}
for label in (0, 1, 90, 1000, 2000):
    kept[label] = batched_nms(pair, scores, torch.full((3,), label), 0.5).tolist()
    print(f"class {label:4}: kept {kept[label]}")
corner = torch.arange(1000.0)[:, None] % 800
elsewhere = torch.cat([corner + 100, corner + 101], 0).reshape(2, 1000).T
others = torch.stack([elsewhere[:, 0], elsewhere[:, 0], elsewhere[:, 1], elsewhere[:, 1]], 1)
more = torch.cat([pair, others])
label = torch.cat([torch.full((3,), 2000), torch.full((1000,), 5)])
kept["more"] = [i for i in batched_nms(more, torch.cat([scores, torch.full((1000,), 0.1)]), label, 0.5).tolist() if i < 3]
print(f"class 2000, and 1000 boxes of another class elsewhere: kept {kept['more']}")
assert [kept[k] for k in (0, 90, 1000)] == [[0, 2]] * 3
assert kept[2000] == [0, 1, 2]
assert kept["more"] == [0, 2]
print("as found")
PY
