"""How many objects selective search finds a box for, beside as many random boxes and as many windows.

python benchmarks/selective_search.py DATA   writes benchmarks/selective_search.md; DATA holds det_bccd and coco_masks.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clearsight.core.boxes import iou_table
from clearsight.core.statistics import wilson
from clearsight.data.datasets import folder
from clearsight.data.images import eight_bit, open_picture
from clearsight.demos.region_detectors import windows
from clearsight.demos.selective_search import selective_search

OUT = Path(__file__).with_suffix(".md")
IOU = 0.5
NUMBERS = (100, 500, 2000)
SETS = {
    "COCO photos": ("coco_masks/images", "coco_masks/boxes_yolo", 53),
    "blood cells": ("det_bccd/images", "det_bccd/annotations", 40),
}
SIDES = (32, 48, 64, 96, 128, 192, 256, 384)


def random_boxes(height: int, width: int, n: int, seed: int) -> Tensor:
    """Boxes between two points anywhere."""
    points = np.random.default_rng(seed).random((n, 2, 2)) * (width, height)
    return torch.from_numpy(np.concatenate([points.min(1), points.max(1)], axis=1))


def spread_windows(height: int, width: int, n: int, seed: int) -> Tensor:
    """n of all square windows of eight sides, a quarter of a side apart, drawn at random."""
    every = windows(height, width, tuple(s for s in SIDES if s <= min(height, width)), 0.25)
    return every[torch.from_numpy(np.random.default_rng(seed).permutation(len(every))[:n])]


def hits(boxes: Tensor, truth: Tensor) -> int:
    return int((iou_table(boxes.double(), truth).amax(0) >= IOU).sum()) if len(boxes) else 0


def measured(name: str, pictures: str, boxes: str, most: int) -> list[str]:
    data = folder(Path(sys.argv[1]) / pictures, boxes=Path(sys.argv[1]) / boxes)
    found = np.zeros((3, len(NUMBERS)), dtype=int)
    objects, seconds, counts = 0, 0.0, 0
    shown = [p for p in data.pictures if p.regions][:most]
    for seed, picture in enumerate(shown):
        values = np.asarray(eight_bit(open_picture(picture.path)).convert("RGB"))
        truth = torch.tensor([b for r in picture.regions or () for b in r.boxes]).double()
        start = time.process_time()
        proposals = torch.from_numpy(selective_search(values, most=max(NUMBERS)))
        seconds += time.process_time() - start
        size = values.shape[:2]
        objects, counts = objects + len(truth), counts + len(proposals)
        for k, n in enumerate(NUMBERS):
            others = (spread_windows(*size, n, seed), random_boxes(*size, n, seed))
            for i, some in enumerate((proposals[:n], *others)):
                found[i, k] += hits(some, truth)
    rows = []
    for i, way in enumerate(("selective search", "windows", "random boxes")):
        cells = []
        for k in range(len(NUMBERS)):
            low, high = wilson(int(found[i, k]), objects)
            cells.append(f"{100 * found[i, k] / objects:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
        took = f"{seconds / len(shown):.1f}" if i == 0 else "–"
        there = f"{counts / len(shown):.0f}" if i == 0 else "–"
        rows.append(
            f"| {name}, {len(shown)} pictures, {objects} objects | {way} | {' | '.join(cells)} | {there} | {took} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    rows = [row for name, (pictures, boxes, most) in SETS.items() for row in measured(name, pictures, boxes, most)]
    head = " | ".join(f"of {n:,} boxes" for n in NUMBERS)
    lines = [
        "# Which objects selective search proposes",
        "",
        f"Made by `python benchmarks/selective_search.py DATA`: the share of objects for which a box of IoU {IOU:g} or "
        "more is among the first boxes, with its 95 % interval (Wilson), in which objects count as independent. "
        "Windows: as many squares, drawn from those of eight sides, a quarter of a side apart. Random: boxes between "
        "two points anywhere. Seconds of processor time a picture, for all proposals; `boxes` is how many there are, "
        "at most 2,000.",
        "",
        f"| set | boxes by | {head} | boxes | seconds |",
        "|---|---|" + "---|" * (len(NUMBERS) + 2),
        *rows,
    ]
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
