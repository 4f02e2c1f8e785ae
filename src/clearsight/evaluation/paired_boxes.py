"""What two detectors find of the same objects: the differences of average precision and of the costs of errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.errors import Refused
from clearsight.evaluation.error_intervals import drawn_costs
from clearsight.evaluation.gains import Gain, gain_of
from clearsight.evaluation.intervals import drawn_precision, mean_of_draws
from clearsight.evaluation.matching import MOST
from clearsight.evaluation.records import BoxSet

_AT_50, _AT_75 = slice(0, 1), slice(5, 6)  # of COCO's ten IoUs


@dataclass(frozen=True)
class BoxGains:
    """AP of two detectors by class and over classes, and what each type of error costs both, in AP50."""

    ap: Gain
    ap50: Gain
    ap75: Gain
    ap_by_class: dict[int, Gain]
    ap50_by_class: dict[int, Gain]
    costs: dict[str, Gain]
    pictures: int


def box_gains(before: BoxSet, after: BoxSet, seed: int = 0, draws: int = 300, most: int = MOST) -> BoxGains:
    """The scores of two detectors on the same pictures, and 95 % intervals of their differences over pictures.

    Args:
        before: detections of the first, and the true boxes.
        after: detections of the second, beside the same true boxes in the same order.
        seed: which pictures are drawn, the same ones for both.
        draws: how many sets are drawn.
        most: at most so many detections of each picture and class count, the best ones.

    Refused: other true boxes, and fewer than 100 draws, which say nothing of the tails.

    The second finds the one object of every picture, the first finds none, so no drawn set has another difference:

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> none = picture_boxes([], [], [], [[0, 0, 4, 4]], [1])
    >>> found = picture_boxes([[0, 0, 4, 4]], [0.9], [1], [[0, 0, 4, 4]], [1])
    >>> [round(v, 6) for v in box_gains(box_set([none] * 8), box_set([found] * 8)).ap50.interval]
    [1.0, 1.0]
    """
    if draws < 100:
        raise Refused(f"draws {draws}", "give at least 100")
    refuse_other_truth(before, after)
    n = before.pictures
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    drawn = np.concatenate([np.ones((1, n), dtype=np.int64), drawn])
    values = [drawn_precision(boxes, drawn, most) for boxes in (before, after)]
    costs = [drawn_costs(boxes, drawn, most=most) for boxes in (before, after)]

    def of(thresholds: slice, classes: slice = slice(None)) -> Gain:
        first, second = (mean_of_draws(v[:, thresholds, classes]) for v in values)
        return gain_of(first, second, n)

    places = {label: slice(k, k + 1) for k, label in enumerate(before.classes)}
    return BoxGains(
        of(slice(None)),
        of(_AT_50),
        of(_AT_75),
        {label: of(slice(None), k) for label, k in places.items()},
        {label: of(_AT_50, k) for label, k in places.items()},
        {name: gain_of(costs[0][name], costs[1][name], n) for name in costs[0]},
        n,
    )


def refuse_other_truth(before: BoxSet, after: BoxSet) -> None:
    """Refuse two sets that do not have the same pictures, classes and true boxes."""
    same = before.pictures == after.pictures and before.classes == after.classes
    pairs = [(getattr(before, name), getattr(after, name)) for name in _TRUTH]
    if not same or not all(np.array_equal(a, b) for a, b in pairs):
        raise Refused("the two detectors are not judged by the same true boxes", "give both the same pictures")


_TRUTH = ("truth_boxes", "truth_labels", "truth_picture", "crowd", "area")
