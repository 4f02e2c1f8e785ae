"""Average precision from who was right, in the order of the scores: by COCO's 101 recalls, by VOC's 11, and exact.

The three differ by several points on small sets, so a figure is worth nothing without its name.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from clearsight.evaluation.matching import Matches
from clearsight.evaluation.records import BoxSet, Flags, Numbers

Points = Literal["101", "11", "all"]
RECALLS = np.linspace(0.0, 1.0, 101)  # pycocotools' floats: 0.7 lies below the 70th, so 7 of 10 misses a point there
_TINY = np.spacing(1.0)  # which pycocotools adds to the number of detections, so that a perfect result is below 1


def average_precision_of(right: Flags, wrong: Flags, truths: float, points: Points = "101") -> float | None:
    """Average precision of one class.

    right, wrong (n,): true and false positives in the falling order of their scores; what is neither is ignored.
    truths: how many true boxes there are; None without any.

    "101": precision, made non-increasing, at the recalls 0, 0.01 ... 1 (COCO).  "11": the highest precision at a recall
    of at least 0, 0.1 ... 1 (VOC 2007, Everingham et al. 2010, doi:10.1007/s11263-009-0275-4).  "all": the exact area
    below the non-increasing curve (VOC 2010 on).

    One right detection of three true boxes: 34 of 101 recalls are reached, 4 of 11, and a third.

    >>> one = np.array([True])
    >>> [round(average_precision_of(one, ~one, 3, points), 4) for points in ("101", "11", "all")]
    [0.3366, 0.3636, 0.3333]
    """
    if truths == 0:
        return None
    at = np.flatnonzero(right)
    found = np.arange(1, len(at) + 1)
    told = found + np.cumsum(wrong)[at]
    if points == "101":
        return float(at_101_recalls(found[None] / truths, found[None] / (told[None] + _TINY))[0])
    recall, precision = found / truths, np.maximum.accumulate((found / told)[::-1])[::-1]
    if points == "11":
        precision = np.append(precision, 0.0)
        return float(np.mean([precision[np.searchsorted(recall, k / 10)] for k in range(11)]))
    return float((precision / truths).sum())


def at_101_recalls(recall: Numbers, precision: Numbers) -> Numbers:
    """COCO's mean of precision over 101 recalls, from the points where a true box is found: (R, n) and (R, n) -> (R,).

    Recall never falls along a row; before the mean, precision is made non-increasing.

    >>> at_101_recalls(np.array([[0.5, 1.0]]), np.array([[1.0, 0.5]])) * 101
    array([76.])
    """
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, recall.ravel(), side="right").reshape(recall.shape)
    new = np.diff(reached, axis=1, prepend=0)
    mean: Numbers = (highest * new).sum(1) / len(RECALLS)
    return mean


def by_class(boxes: BoxSet, matches: Matches, points: Points = "101") -> Numbers:
    """Average precision from matches, by threshold and class: (T, C); NaN for classes without true boxes that count."""
    found = np.full((len(matches.thresholds), len(boxes.classes)), np.nan)
    right, wrong = matches.is_right(), matches.is_wrong()
    order = np.lexsort((-boxes.scores, boxes.labels))
    starts = np.searchsorted(boxes.labels[order], np.arange(len(boxes.classes) + 1))
    truths_of = np.bincount(boxes.truth_labels[matches.counted], minlength=len(boxes.classes))
    for k, truths in enumerate(truths_of.tolist()):
        of_class = order[starts[k] : starts[k + 1]]
        for t in range(len(found)):
            value = average_precision_of(right[t, of_class], wrong[t, of_class], truths, points)
            found[t, k] = np.nan if value is None else value
    return found


def recall_by_class(boxes: BoxSet, matches: Matches, among: Flags) -> Numbers:
    """The share of the true boxes that is found, by threshold and class: (T, C); NaN where none counts.

    among (D,): the detections that may find them, such as the best of each picture and class.
    """
    truths = np.bincount(boxes.truth_labels[matches.counted], minlength=len(boxes.classes))
    right = matches.is_right() & among
    found = np.stack([np.bincount(boxes.labels[r], minlength=len(boxes.classes)) for r in right])
    share: Numbers = np.where(truths > 0, found / np.maximum(truths, 1), np.nan)
    return share
