#!/usr/bin/env bash
# labelme 6.3.1: a rectangle's mask includes its far edge, so that two rectangles that share an edge overlap, and a rectangle turned
# into a mask and back into a box grows by one pixel each time.
#
# Why it matters: a box of 3 x 4 becomes 20 pixels instead of 12. For small objects, areas, overlaps (IoU) and "how much of the map lies on
# the object" are far from those that the drawn shape has.
# Expected: 12. In labelme's canvas a corner may lie anywhere from 0 to the picture's width, width included (is_out_of_pixmap), so that the
# left edge of the first pixel is 0; and masks_to_bboxes, beside shape_to_mask, adds 1 to the last pixel for the far edge.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "labelme==6.3.1" "pillow==13.0.0" "numpy==2.4.6"
cd "$d"
export QT_QPA_PLATFORM=offscreen
"$d/venv/bin/python" - <<'PY'
from importlib.metadata import version

from labelme.utils import masks_to_bboxes, shape_to_mask

print("labelme", version("labelme"), "Pillow", version("pillow"))


def mask(x0, y0, x1, y1):
    return shape_to_mask((12, 12), [[x0, y0], [x1, y1]], "rectangle")


small = mask(2, 3, 5, 7)
print("rectangle (2, 3) to (5, 7), 3 x 4 = 12:", int(small.sum()), "pixels")
assert small.sum() == 20

left, right = mask(0, 0, 4, 4), mask(4, 0, 8, 4)
print("two rectangles that share one edge of length 4 share", int((left & right).sum()), "pixels")
assert (left & right).sum() == 5

box, boxes = (2, 3, 5, 7), []
for _ in range(3):
    y0, x0, y1, x1 = (int(v) for v in masks_to_bboxes(mask(*box)[None])[0])
    box = (x0, y0, x1, y1)
    boxes.append(box)
print("rectangle to mask to box, three times:", boxes)
assert boxes == [(2, 3, 6, 8), (2, 3, 7, 9), (2, 3, 8, 10)]
print("as found")
PY
