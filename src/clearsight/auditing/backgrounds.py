"""Objects cut out with their boxes, backgrounds without objects, and both put together again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearsight.auditing.detector_case import DetectorCase
from clearsight.core.boxes import iou_table
from clearsight.kinds.detections import Detections
from clearsight.perturbation.inpainting import inpainted

FULL = 0.6  # share of a picture's pixels in boxes above which what is left is no background


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Where any of the boxes (M, 4) lies, bool (H, W): the pixels that it touches.

    >>> inside(torch.tensor([[1.0, 0, 2.5, 1]]), 2, 4).int().tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    where = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes.tolist():
        where[max(0, int(y1)) : max(0, _up(y2)), max(0, int(x1)) : max(0, _up(x2))] = True
    return where


def background_of(case: DetectorCase, row: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """A picture x (C, H, W) with all its objects painted over from around them, and where they were, bool (H, W)."""
    where = inside(case.all_objects(row).boxes, *x.shape[1:])
    if not where.any():
        return x, where
    return inpainted(x[None], where[None])[0], where


def is_background(where: Tensor) -> bool:
    """Whether enough of a picture is left beside its objects, where bool (H, W), to be a background."""
    return float(where.float().mean()) <= FULL


def found(objects: Tensor, classes: Tensor, said: Detections, score: float) -> list[bool]:
    """Whether each object (M, 4) with its class (M,) has a detection of that class from a score on, IoU 0.5 or more.

    >>> one = Detections(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0.9]), torch.tensor([1]), *2 * [torch.zeros(1)])
    >>> found(torch.tensor([[0.0, 0, 4, 3], [0, 0, 4, 3]]), torch.tensor([1, 0]), one, 0.5)
    [True, False]
    """
    over = iou_table(objects.double(), said.boxes.double()) >= 0.5
    fits = over & (classes[:, None] == said.labels[None]) & (said.scores >= score)[None]
    answers: list[bool] = fits.any(1).tolist()
    return answers


def donors(case: DetectorCase, rows: Sequence[int], backgrounds: Sequence[int], row: int, most: int) -> list[int]:
    """Pictures whose background a row's objects are put on: those first that show none of its classes.

    backgrounds: rows whose background can be used, in a seeded order, of which the row itself is none of its own.
    """
    classes = set(case.found[row].truth_labels.tolist())
    others = [i for i in backgrounds if i != row]
    start = rows.index(row) % max(1, len(others))
    others = others[start:] + others[:start]  # so that not all get the same
    others.sort(key=lambda i: bool(classes & set(case.found[i].truth_labels.tolist())))
    return others[:most]


def _up(v: float) -> int:
    return -int(-v // 1)
