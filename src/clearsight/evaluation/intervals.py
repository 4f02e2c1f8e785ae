"""How far average precision would move with other pictures of the same kind: a bootstrap over pictures.

Efron 1979, doi:10.1214/aos/1176344552.  Whole pictures are drawn, because the boxes of one picture are not independent.
Boxes are matched once; a drawn set differs in how often each picture's matches count.

Average precision of a drawn set is too high in the mean: pictures that stand twice make precision uneven, and its
non-increasing envelope takes the upper side.  So the percentiles are moved by that bias, back to where the mean of the
draws is the figure itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.core.statistics import Interval
from clearsight.errors import Refused
from clearsight.evaluation.average_precision import THRESHOLDS
from clearsight.evaluation.curves import at_101_recalls
from clearsight.evaluation.matching import MOST, match
from clearsight.evaluation.records import BoxSet, Flags, Numbers, Whole
from clearsight.evaluation.resampling import percentiles

_AT_ONCE = 2**22  # numbers in one table of drawn sets


@dataclass(frozen=True)
class PrecisionIntervals:
    """95 % percentile intervals of COCO's figures; None from fewer than seven pictures, or without true boxes."""

    ap: Interval | None
    ap50: Interval | None
    ap75: Interval | None
    ap50_by_class: dict[int, Interval | None]
    pictures: int
    draws: int


def precision_intervals(boxes: BoxSet, seed: int = 0, draws: int = 300, most: int = MOST) -> PrecisionIntervals:
    """95 % intervals of AP, AP50 and AP75 over pictures: expanded percentiles, moved by the bias of the draws.

    In 100 to 250 made-up sets of 12 or 50 pictures and 3 or 20 classes they held the expected figure in 94 to 97 % of
    cases; percentiles that are not moved did in 88 to 95 %.

    A class that a drawn set lacks leaves its mean, as in COCO.

    Args:
        boxes: detections and true boxes of all pictures.
        seed: which pictures are drawn.
        draws: how many sets are drawn.
        most: at most so many detections of each picture and class count, the best ones.

    Refused: fewer than 100 draws, which say nothing of the tails.

    In every picture the one object is found, so no drawn set has another figure:

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> one = picture_boxes([[0, 0, 4, 4]], [0.9], [1], [[0, 0, 4, 4]], [1])
    >>> [round(v, 6) for v in precision_intervals(box_set([one] * 8)).ap50]
    [1.0, 1.0]
    """
    if draws < 100:
        raise Refused(f"draws {draws}", "give at least 100")
    n = boxes.pictures
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    values = drawn_precision(boxes, np.concatenate([np.ones((1, n), dtype=np.int64), drawn]), most)
    return PrecisionIntervals(
        _interval(mean_of_draws(values), n),
        _interval(mean_of_draws(values[:, 0:1]), n),
        _interval(mean_of_draws(values[:, 5:6]), n),
        {label: _interval(values[:, 0, k], n) for k, label in enumerate(boxes.classes)},
        n,
        draws,
    )


def drawn_precision(boxes: BoxSet, drawn: Whole, most: int = MOST) -> Numbers:
    """Average precision of drawn sets of pictures, by IoU and class: drawn (R, pictures) counts -> (R, 10, C).

    What COCO's rule gives for a set in which each picture stands as often as it was drawn; NaN where such a set has no
    true box of a class.  Detections of equal scores stand together in it, copies of one picture included.
    """
    matches = match(boxes, THRESHOLDS, most)
    return drawn_matches(boxes, boxes.labels, matches.is_right(), matches.is_wrong(), ~boxes.crowd, drawn)


def drawn_matches(boxes: BoxSet, labels: Whole, right: Flags, wrong: Flags, counted: Flags, drawn: Whole) -> Numbers:
    """Average precision of drawn sets from who is right: drawn (R, pictures) counts -> (R, T, C).

    labels (D,), right and wrong (T, D): of the detections of `boxes`, which may have been mended.  counted (K,): which
    of its true boxes count.
    """
    values = np.full((len(drawn), len(right), len(boxes.classes)), np.nan)
    order = np.lexsort((-boxes.scores, labels))
    starts = np.searchsorted(labels[order], np.arange(len(boxes.classes) + 1))
    for k in range(len(boxes.classes)):
        of_class = order[starts[k] : starts[k + 1]]
        truths = np.bincount(boxes.truth_picture[(boxes.truth_labels == k) & counted], minlength=boxes.pictures).astype(
            np.float64
        )
        rows = max(1, _AT_ONCE // max(1, len(of_class)))
        for start in range(0, len(drawn), rows):
            part = drawn[start : start + rows]
            weight = part[:, boxes.picture[of_class]].astype(np.float64)
            values[start : start + rows, :, k] = _of_class(
                right[:, of_class], wrong[:, of_class], weight, part @ truths
            )
    return values


def _of_class(right: Flags, wrong: Flags, weight: Numbers, truths: Numbers) -> Numbers:
    """Average precision of one class: right, wrong (T, n) by falling score, weight (R, n), truths (R,) -> (R, T)."""
    values = np.empty((len(weight), len(right)))
    whole = np.cumsum(weight, axis=1)
    for t in range(len(right)):
        at = np.flatnonzero(right[t])
        neither = ~(right[t] | wrong[t])
        told = whole[:, at]
        if neither.any():
            told = told - np.cumsum(weight * neither, axis=1)[:, at]
        found = np.cumsum(weight[:, at], axis=1)
        values[:, t] = at_101_recalls(found / np.maximum(truths, 1)[:, None], found / (told + np.spacing(1.0)))
    values[truths == 0] = np.nan
    return values


def mean_of_draws(values: Numbers) -> Numbers:
    """The mean of each drawn set over thresholds and the classes that it has: (R, T, C) -> (R,)."""
    taken = values.reshape(len(values), -1)
    n = (~np.isnan(taken)).sum(1)
    means: Numbers = np.divide(np.nansum(taken, axis=1), n, out=np.full(len(values), np.nan), where=n > 0)
    return means


def _interval(values: Numbers, pictures: int) -> Interval | None:
    """From the figure itself, which leads, and those of the drawn sets."""
    return percentiles(float(values[0]), values[1:], pictures)
