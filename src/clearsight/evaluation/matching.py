"""Which detection finds which true box, by COCO's rule, for all pictures, classes and thresholds at once.

Average precision, error types, calibration and intervals are all made of these matches; a test holds that average
precision and recall are those of pycocotools.

The rule (Lin et al. 2014, arXiv:1405.0312, and pycocotools' cocoeval.py): in each picture and class the detections
choose in the order of their scores.  Each takes the true box of the highest IoU that is free and reaches the threshold,
and of equal IoUs the last.  Only where there is none it falls to a crowd, if the share of it that lies inside reaches
the threshold; a crowd takes any number, and what it takes is ignored.

Where objects of some sizes alone are asked for, true boxes of other sizes are ignored as crowds are, only that each
takes one detection; so is a detection of another size that finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearsight.errors import Refused
from clearsight.evaluation.records import BoxSet, Flags, Numbers, Whole

MOST = 100  # detections of a picture and class that COCO judges
ANY_SIZE = (0.0, np.inf)


@dataclass(frozen=True)
class Matches:
    """What became of each detection at each threshold."""

    thresholds: tuple[float, ...]
    judged: Flags  # (D,): among the best of its picture and class
    truth: Whole  # (T, D): the true box that it found, or the crowd that took it; -1 where there is none
    overlap: Numbers  # (T, D): IoU with that box, or the share inside the crowd; 0 where there is none
    ignored: Flags  # (T, D): taken by a true box that does not count; or of another size, and without a match
    counted: Flags  # (K,): true boxes to be found, which are no crowds and of the size that is asked for

    def is_right(self) -> Flags:
        """True positives: (T, D)."""
        return (self.truth >= 0) & ~self.ignored

    def is_wrong(self) -> Flags:
        """False positives: (T, D)."""
        return (self.truth < 0) & self.judged & ~self.ignored


def match(
    boxes: BoxSet, thresholds: Sequence[float], most: int = MOST, size: tuple[float, float] = ANY_SIZE
) -> Matches:
    """Matches of detections with true boxes of their picture and class, each true box at most once.

    Args:
        boxes: detections and true boxes.
        thresholds: IoUs that a match needs at least, each in (0, 1].
        most: at most so many detections of each picture and class, the best ones.
        size: the least and the largest area in square pixels, of objects by their ``area``, of detections by their box;
            both bounds belong to it.

    Refused: thresholds outside of (0, 1], and fewer than one detection.

    The better detection takes the box; the second one, which overlaps it as well, is a false positive:

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> one = picture_boxes([[0, 0, 4, 4], [0, 0, 4, 3]], [0.6, 0.9], [1, 1], [[0, 0, 4, 4]], [1])
    >>> match(box_set([one]), [0.5]).is_right().tolist()
    [[False, True]]
    """
    wrong = [t for t in thresholds if not 0 < t <= 1]
    if wrong or not len(thresholds):
        raise Refused(f"IoU thresholds {list(thresholds)}", "give some above 0, and at most 1")
    if most < 1:
        raise Refused(f"most {most}", "judge at least one detection of a picture and class")
    judged = rank_by_score(boxes) < most
    counted = ~boxes.crowd & _between(boxes.area, size)
    limits = np.minimum(np.asarray(thresholds, dtype=np.float64), 1 - 1e-10)
    detection, truth = pairs(boxes)
    of_class = (boxes.labels[detection] == boxes.truth_labels[truth]) & judged[detection]
    detection, truth = detection[of_class], truth[of_class]
    overlap = overlaps(boxes, detection, truth)
    matched = np.full((len(limits), len(boxes.scores)), -1, dtype=np.int64)
    reached = np.zeros(matched.shape)
    at, pair = np.nonzero(overlap >= limits[:, None])
    _choose(boxes, counted, matched, reached, at, detection[pair], truth[pair], overlap[pair])
    sides = np.maximum(boxes.boxes[:, 2:] - boxes.boxes[:, :2], 0)
    ignored = np.append(~counted, False)[matched]  # the last for the -1 of those without a match
    ignored |= (matched < 0) & ~_between(sides.prod(1), size)
    return Matches(tuple(thresholds), judged, matched, reached, ignored, counted)


def _between(area: Numbers, size: tuple[float, float]) -> Flags:
    inside: Flags = (area >= size[0]) & (area <= size[1])
    return inside


def rank_by_score(boxes: BoxSet) -> Whole:
    """The place of each detection among those of its picture and class, best first, from 0: (D,)."""
    order = np.lexsort((-boxes.scores, boxes.labels, boxes.picture))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(boxes.labels[order]) != 0) | (np.diff(boxes.picture[order]) != 0)
    starts = np.flatnonzero(new)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return rank


def pairs(boxes: BoxSet) -> tuple[Whole, Whole]:
    """Every detection with every true box of its picture: their places, by detection and then by true box."""
    truths = np.bincount(boxes.truth_picture, minlength=boxes.pictures)
    first = np.cumsum(truths) - truths
    beside = truths[boxes.picture]
    detection = np.repeat(np.arange(len(beside)), beside)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(beside) - beside, beside)
    return detection, first[boxes.picture][detection] + within


def overlaps(boxes: BoxSet, detection: Whole, truth: Whole) -> Numbers:
    """IoU of pairs, and of pairs with a crowd the share of the detection that lies in it.

    Worked out from corner and size, as COCO stores boxes, so that an IoU of exactly a threshold falls to the same side
    as there.  ``core.boxes`` has the same figures for tensors.
    """
    a, b = boxes.boxes[detection], boxes.truth_boxes[truth]
    size_a, size_b = np.maximum(a[:, 2:] - a[:, :2], 0), np.maximum(b[:, 2:] - b[:, :2], 0)
    shared = np.minimum(a[:, :2] + size_a, b[:, :2] + size_b) - np.maximum(a[:, :2], b[:, :2])
    inter = np.maximum(shared, 0).prod(1)
    whole = np.where(boxes.crowd[truth], size_a.prod(1), size_a.prod(1) + size_b.prod(1) - inter)
    share: Numbers = np.divide(inter, whole, out=np.zeros_like(inter), where=whole > 0)
    return share


def _choose(
    boxes: BoxSet,
    counted: Flags,
    matched: Whole,
    reached: Numbers,
    at: Whole,
    detection: Whole,
    truth: Whole,
    overlap: Numbers,
) -> None:
    """Fill in matched and reached (T, D) from the pairs that reach a threshold.

    The detections of different pictures, classes and thresholds do not compete, so one step serves all that come at the
    same place in their group.
    """
    turn = _turns(boxes, detection)
    crowd = boxes.crowd[truth]
    order = np.lexsort((-truth, -overlap, ~counted[truth], detection, at, turn))
    at, detection, truth, turn = (v[order] for v in (at, detection, truth, turn))
    overlap, crowd = overlap[order], crowd[order]
    free = np.ones((len(matched), len(boxes.crowd)), dtype=bool)
    ends = np.flatnonzero(np.diff(turn, append=-1)) + 1
    start = 0
    for end in ends.tolist():
        can = np.flatnonzero(free[at[start:end], truth[start:end]] | crowd[start:end]) + start
        start = end
        # the first of each detection and threshold that is left is its choice
        first = can[np.append(True, (np.diff(detection[can]) != 0) | (np.diff(at[can]) != 0))] if len(can) else can
        matched[at[first], detection[first]] = truth[first]
        reached[at[first], detection[first]] = overlap[first]
        free[at[first], truth[first]] = False


def _turns(boxes: BoxSet, detection: Whole) -> Whole:
    """When each pair's detection chooses: its place among those of its picture and class that could find anything."""
    asking = np.unique(detection)
    turn = np.zeros(len(boxes.scores), dtype=np.int64)
    turn[asking] = rank_by_score(boxes.with_detections(asking))
    return turn[detection]
