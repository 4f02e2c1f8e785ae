"""Whether a detector's scores mean what they say: of boxes with 0.8, are 80 % right?

Both figures are of detections alone, so a detector that keeps its few sure boxes looks calibrated while it misses most
objects.  That is why recall stands beside them, with the score floor and the IoU that they depend on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.core.calibration_error import bin_of, ece
from clearsight.errors import Refused
from clearsight.evaluation.matching import MOST, match
from clearsight.evaluation.records import BoxSet, Numbers


@dataclass(frozen=True)
class ScoreBin:
    """The detections whose scores lie above low and at most at high."""

    low: float
    high: float
    detections: int
    score: float | None  # their mean score; None without any
    precision: float | None  # how many of them are right


@dataclass(frozen=True)
class BoxCalibration:
    """Both calibration errors in [0, 1], with what they depend on; None without a detection above the floor."""

    d_ece: float | None
    la_ece: float | None
    recall: float | None  # the share of true boxes that a detection above the floor finds; None without true boxes
    precision: float | None
    la_ece_by_class: dict[int, float | None]
    bins: tuple[ScoreBin, ...]  # of D-ECE
    detections: int
    truths: int
    floor: float
    iou: float


def box_calibration(
    boxes: BoxSet,
    floor: float = 0.3,
    iou: float = 0.5,
    bins: int = 10,
    class_bins: int = 25,
    most: int = MOST,
) -> BoxCalibration:
    """The detection calibration errors D-ECE and LaECE, with recall, score floor and IoU.

    D-ECE: the mean over detections of |precision - mean score| of their bin of scores (Küppers, Kronenberger, Shantia &
    Haselhoff 2020, arXiv:2004.13546).  LaECE: |mean score - precision x mean IoU of the right ones| in the
    same way, which is the sum of the right ones' IoUs over all, by class, and the mean over classes with a detection
    (Oksuz, Joy & Dokania 2023, arXiv:2307.00934).  Bins are open below and closed above.  A second box on
    one object is wrong; what a crowd takes is left out.

    Args:
        boxes: detections and true boxes of all pictures; scores are shares in [0, 1].
        floor: detections with a lower score are left out.
        iou: what a right detection needs at least.
        bins: bins of scores for D-ECE.
        class_bins: bins of scores for LaECE.
        most: at most so many detections of each picture and class count, the best ones.

    Refused: scores outside of [0, 1], and fewer than one bin.

    Two boxes with 0.8, one of them right with an IoU of 0.75; one of two objects is found:

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> truth = [[0, 0, 4, 4], [20, 0, 24, 4]]
    >>> one = picture_boxes([[0, 0, 4, 3], [10, 0, 14, 4]], [0.8, 0.8], [1, 1], truth, [1, 1])
    >>> found = box_calibration(box_set([one]))
    >>> round(found.d_ece, 6), round(found.la_ece, 6), found.recall
    (0.3, 0.425, 0.5)
    """
    if bins < 1 or class_bins < 1:
        raise Refused(f"bins {bins} and class_bins {class_bins}", "give at least one of each")
    if len(boxes.scores) and (boxes.scores.min() < 0 or boxes.scores.max() > 1):
        raise Refused("some scores are not in [0, 1]", "give probabilities, not logits")
    kept = boxes.above(floor)
    matches = match(kept, [iou], most)
    counts = matches.judged & ~matches.ignored[0]
    right = matches.is_right()[0]
    score, labels = kept.scores[counts], kept.labels[counts]
    is_right, quality = right[counts].astype(np.float64), np.where(right, matches.overlap[0], 0.0)[counts]
    by_class = {
        label: ece(score[labels == k], quality[labels == k], class_bins) if (labels == k).any() else None
        for k, label in enumerate(boxes.classes)
    }
    known = [value for value in by_class.values() if value is not None]
    truths = int((~boxes.crowd).sum())
    return BoxCalibration(
        ece(score, is_right, bins) if len(score) else None,
        float(np.mean(known)) if known else None,
        float(right.sum() / truths) if truths else None,
        float(is_right.mean()) if len(score) else None,
        by_class,
        tuple(_bin(k, bins, score, is_right) for k in range(bins)),
        len(score),
        truths,
        floor,
        iou,
    )


def _bin(k: int, bins: int, score: Numbers, is_right: Numbers) -> ScoreBin:
    here = bin_of(score, bins) == k
    n = int(here.sum())
    means = (float(score[here].mean()), float(is_right[here].mean())) if n else (None, None)
    return ScoreBin(k / bins, (k + 1) / bins, n, *means)
