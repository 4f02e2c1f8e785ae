"""Average precision of boxes by the rule of PASCAL VOC, which is not COCO's: 11 recalls, and all.

Everingham, Van Gool, Williams, Winn & Zisserman 2010, doi:10.1007/s11263-009-0275-4, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.errors import Refused
from clearsight.evaluation.curves import by_class
from clearsight.evaluation.matching import Matches, overlaps, pairs
from clearsight.evaluation.records import BoxSet


@dataclass(frozen=True)
class VocPrecision:
    """VOC's two figures, their means over the classes with true boxes, and by class; None without true boxes."""

    eleven_point: float | None  # VOC 2007
    all_point: float | None  # VOC 2010 and later
    eleven_point_by_class: dict[int, float | None]
    all_point_by_class: dict[int, float | None]
    truths: int
    iou: float


def voc_precision(boxes: BoxSet, iou: float = 0.5) -> VocPrecision:
    """VOC's average precision: over 11 recalls, and over all.

    Each detection goes to the true box that it overlaps most, be that taken or not: the second on one object is wrong
    even where it overlaps a free one enough.  It must overlap by more than iou.  Boxes marked ``crowd`` are VOC's
    "difficult" ones: not counted, and what falls to them neither.  All detections count, not the best hundred.

    VOC's own code adds 1 to each width, because its corners are pixels that belong to the box.  Here boxes are edges,
    to which the readers of annotations turn them, and nothing is added: the areas are the same.

    Args:
        boxes: detections and true boxes of all pictures.
        iou: what a detection must overlap its true box by, and more.

    Refused: an iou outside of [0, 1).

    One of three is found: 4 of the 11 recalls, and a third.

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> truth = [[0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]]
    >>> found = voc_precision(box_set([picture_boxes([[0, 0, 4, 4]], [0.9], [1], truth, [1, 1, 1])]))
    >>> round(found.eleven_point, 4), round(found.all_point, 4)
    (0.3636, 0.3333)
    """
    if not 0 <= iou < 1:
        raise Refused(f"iou {iou}", "give at least 0, and less than 1")
    matches = _voc_matches(boxes, iou)
    eleven, every = by_class(boxes, matches, "11")[0], by_class(boxes, matches, "all")[0]
    values = [
        {label: None if np.isnan(v) else float(v) for label, v in zip(boxes.classes, of, strict=True)}
        for of in (eleven, every)
    ]
    means = [[v for v in of.values() if v is not None] for of in values]
    return VocPrecision(
        float(np.mean(means[0])) if means[0] else None,
        float(np.mean(means[1])) if means[1] else None,
        values[0],
        values[1],
        int((~boxes.crowd).sum()),
        iou,
    )


def _voc_matches(boxes: BoxSet, iou: float) -> Matches:
    detection, truth = pairs(boxes)
    of_class = boxes.labels[detection] == boxes.truth_labels[truth]
    detection, truth = detection[of_class], truth[of_class]
    no_crowd = boxes.without_crowds()  # a difficult object is overlapped like any other
    overlap = overlaps(no_crowd, detection, truth)
    order = np.lexsort((truth, -overlap, detection))  # of equal overlaps the first
    nearest = order[np.diff(detection[order], prepend=-1) != 0]
    nearest = nearest[overlap[nearest] > iou]
    goes_to = np.full(len(boxes.scores), -1)
    goes_to[detection[nearest]] = truth[nearest]
    reached = np.zeros(len(boxes.scores))
    reached[detection[nearest]] = overlap[nearest]
    ignored = np.append(boxes.crowd, False)[goes_to]
    going = np.flatnonzero((goes_to >= 0) & ~ignored)
    by_score = going[np.argsort(-boxes.scores[going], kind="stable")]
    _, first = np.unique(goes_to[by_score], return_index=True)
    late = np.setdiff1d(by_score, by_score[first])
    goes_to[late], reached[late] = -1, 0.0
    judged = np.ones(len(boxes.scores), dtype=bool)
    return Matches((iou,), judged, goes_to[None], reached[None], ignored[None], ~boxes.crowd)
