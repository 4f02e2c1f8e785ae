"""Places that take their answer along from picture to picture, looked for without maps.

A network can use a place and hide it from its gradients.  What it does when the place is put on another picture it
cannot hide, so every place is tried in short, and the best ones are suspects like those of maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.interventions import log_odds, seeded_partners
from clearsight.auditing.spray import Box, area, inside
from clearsight.internals.scores import scores

PAIRS = 16  # pictures whose place is put on another one
BEST = 3  # places that are looked at more closely


def carrying_places(case: Case, rows: Sequence[int], largest: float) -> tuple[list[Box], int]:
    """The places that most raise the odds of their answer on pictures of another, the best first; and how many were
    tried.

    Boxes of at most that share of the picture, side by side over all of it; then the best three moved by half a side
    each way.  Left out are boxes that raise nothing, and those of which more than half lies in a better one.
    """
    size = (case.model.preprocess.size[0], case.model.preprocess.size[1])
    donors = case.sample(rows, PAIRS)
    pairs = [(x, case.pixels(receivers), case.predicted[part]) for part, x, receivers, _ in
             seeded_partners(case, donors, rows)]  # fmt: skip
    grid = boxes_side_by_side(size, largest)
    if not pairs:
        return [], 0
    gains = dict(zip(grid, _gains(case, pairs, grid, size), strict=True))
    moved = [b for box in _best(gains)[:BEST] for b in moved_by_half(box, size) if b not in gains]
    moved = list(dict.fromkeys(moved))
    gains |= dict(zip(moved, _gains(case, pairs, moved, size), strict=True))
    return without_overlap(_best(gains))[:BEST], len(gains)


def without_overlap(boxes: Sequence[Box]) -> list[Box]:
    """The boxes but those of which more than half lies in one before them.

    >>> without_overlap([(0, 0, 2, 2), (0, 0, 2, 3), (0, 1, 2, 3)])
    [(0, 0, 2, 2), (0, 1, 2, 3)]
    """
    found: list[Box] = []
    for box in boxes:
        if all(not covers_half(box, other) for other in found):
            found.append(box)
    return found


def _best(gains: dict[Box, float]) -> list[Box]:
    return [box for box in sorted(gains, key=lambda b: (-gains[b], b)) if gains[box] > 0]


def _gains(
    case: Case, pairs: Sequence[tuple[Tensor, Tensor, Tensor]], boxes: Sequence[Box], size: tuple[int, int]
) -> list[float]:
    """By how much each box, put on the receivers, raises the odds of its donors' answers there: a mean logarithm."""
    totals = torch.zeros(len(boxes), dtype=torch.float64)
    n = sum(len(x) for x, _, _ in pairs)
    with case.model.undisturbed():
        for x, received, answers in pairs:
            before = _odds(case, received, answers)
            for k, box in enumerate(boxes):
                made = torch.where(inside(box, size), x, received)
                totals[k] += (_odds(case, made, answers) - before).double().sum()
    return (totals / n).tolist()


def _odds(case: Case, x: Tensor, answers: Tensor) -> Tensor:
    return log_odds(scores(case.model, x.to(case.model.device)), answers)


def boxes_side_by_side(size: tuple[int, int], largest: float) -> list[Box]:
    """Boxes of at most that share of the area, as wide for the picture as high, that cover all of it.

    >>> boxes_side_by_side((4, 4), 0.25)
    [(0, 0, 2, 2), (0, 2, 2, 4), (2, 0, 4, 2), (2, 2, 4, 4)]
    """
    sides = [max(1, int(length * largest**0.5)) for length in size]
    starts = [_starts(length, side) for length, side in zip(size, sides, strict=True)]
    return [(top, left, top + sides[0], left + sides[1]) for top, left in product(*starts)]


def _starts(length: int, side: int) -> list[int]:
    n = ceil(length / side)
    return [round(i * (length - side) / max(n - 1, 1)) for i in range(n)]


def moved_by_half(box: Box, size: tuple[int, int]) -> list[Box]:
    """The box moved by half of its side, in eight directions, inside a picture of that size."""
    high, wide = box[2] - box[0], box[3] - box[1]
    found = []
    for down, across in product((-1, 0, 1), (-1, 0, 1)):
        top = min(max(box[0] + down * ceil(high / 2), 0), size[0] - high)
        left = min(max(box[1] + across * ceil(wide / 2), 0), size[1] - wide)
        found.append((top, left, top + high, left + wide))
    return [b for b in dict.fromkeys(found) if b != box]


def covers_half(one: Box, other: Box) -> bool:
    """Whether more than half of the smaller box lies in the other.

    >>> covers_half((0, 0, 2, 2), (0, 0, 9, 9)), covers_half((0, 0, 2, 2), (0, 1, 2, 3))
    (True, False)
    """
    both = area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    return both > min(area(one), area(other)) / 2
