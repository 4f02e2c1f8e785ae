"""Average precision and recall of boxes as COCO defines them.

Lin et al. 2014, arXiv:1405.0312; https://cocodataset.org/#detection-eval.  What COCO's mean does not show stands beside
it: how many true boxes it rests on, and how many of the false positives it leaves out, because their class has no true
box.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clearsight.evaluation.curves import by_class, recall_by_class
from clearsight.evaluation.matching import MOST, match, rank_by_score
from clearsight.evaluation.records import BoxSet, Numbers

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # the floats of pycocotools: 0.05 * k differs in the last digit
_AT_50, _AT_75 = 0, 5  # their places
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class Precision:
    """The figures of one class, or their means over classes; None where no true box decides."""

    ap: float | None  # mean over IoU 0.5, 0.55 ... 0.95
    ap50: float | None
    ap75: float | None
    ap_small: float | None  # objects up to 32 x 32 pixels, both bounds included
    ap_medium: float | None  # up to 96 x 96
    ap_large: float | None
    ar: float | None  # the share of true boxes found, mean over the IoUs
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    ar_by_most: dict[int, float | None]  # where so many detections of a picture and class count


@dataclass(frozen=True)
class ClassPrecision:
    """The figures of one class, and what they rest on."""

    label: int
    truths: int
    crowds: int
    detections: int
    figures: Precision


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures of a set of pictures, beside what they rest on."""

    mean: Precision
    by_class: tuple[ClassPrecision, ...]
    pictures: int
    truths: int
    crowds: int
    detections: int
    classes_without_truths: tuple[int, ...]  # left out of every mean
    unseen_false_positives: int  # detections of those classes outside of crowds: no mean falls because of them
    most: int

    def as_dict(self) -> dict[str, Any]:
        """Everything, in the words of JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The figures for people, with what they rest on."""
        m = self.mean
        judged = len(self.by_class) - len(self.classes_without_truths)
        found = [
            f"AP {_percent(m.ap)}, AP50 {_percent(m.ap50)}, AP75 {_percent(m.ap75)}; small {_percent(m.ap_small)}, "
            f"medium {_percent(m.ap_medium)}, large {_percent(m.ap_large)}; AR {_percent(m.ar)}",
            f"mean over {judged} classes with {self.truths} true boxes in {self.pictures} pictures; "
            f"{self.detections} detections",
        ]
        if self.classes_without_truths:
            found.append(
                f"{len(self.classes_without_truths)} classes have no true box, so their "
                f"{self.unseen_false_positives} false positives do not lower the mean"
            )
        return found


def average_precision(boxes: BoxSet, most: int = MOST) -> AveragePrecision:
    """COCO's average precision and recall: at IoU 0.5, 0.75 and 0.5 to 0.95, by class and by size.

    Precision is read at 101 recalls after it was made non-increasing, so one right box of two gives 51/101 and not 1/2.
    The order of detections of equal scores decides: pictures, then lists.  Turned boxes, which pycocotools ignores
    because their area is below 0, count as wrong.

    Args:
        boxes: detections and true boxes of all pictures.
        most: at most so many detections of each picture and class count, the best ones; COCO's figures are of 100.

    Refused: fewer than one detection.

    One true box of two is found, and a second detection finds nothing:

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> truth = [[0, 0, 40, 40], [50, 50, 90, 90]]
    >>> one = picture_boxes([[0, 0, 40, 40], [0, 50, 40, 90]], [0.9, 0.8], [1, 1], truth, [1, 1])
    >>> round(average_precision(box_set([one])).mean.ap50 * 101, 6)
    51.0
    """
    matches = {name: match(boxes, THRESHOLDS, most, size) for name, size in SIZES.items()}
    ap = {name: by_class(boxes, m) for name, m in matches.items()}
    ar = {name: recall_by_class(boxes, m, m.judged) for name, m in matches.items()}
    rank = rank_by_score(boxes)
    ar_by_most = {n: recall_by_class(boxes, matches["all"], rank < n) for n in sorted({1, min(10, most), most})}
    truths = boxes.truths_by_class()
    crowds = np.bincount(boxes.truth_labels[boxes.crowd], minlength=len(boxes.classes))
    detections = np.bincount(boxes.labels, minlength=len(boxes.classes))
    unseen = matches["all"].is_wrong()[0] & (truths == 0)[boxes.labels]
    rows = zip(boxes.classes, truths.tolist(), crowds.tolist(), detections.tolist(), strict=True)
    by = tuple(ClassPrecision(*row, _figures(ap, ar, ar_by_most, [k])) for k, row in enumerate(rows))
    return AveragePrecision(
        _figures(ap, ar, ar_by_most, slice(None)),
        by,
        boxes.pictures,
        int(truths.sum()),
        int(crowds.sum()),
        len(boxes.scores),
        tuple(label for label, n in zip(boxes.classes, truths, strict=True) if n == 0),
        int(unseen.sum()),
        most,
    )


def _figures(
    ap: dict[str, Numbers], ar: dict[str, Numbers], ar_by_most: dict[int, Numbers], classes: slice | list[int]
) -> Precision:
    """Means over some classes of figures (T, C) by size, and of recall by the number of detections."""
    return Precision(
        ap=_mean(ap["all"][:, classes]),
        ap50=_mean(ap["all"][_AT_50, classes]),
        ap75=_mean(ap["all"][_AT_75, classes]),
        ap_small=_mean(ap["small"][:, classes]),
        ap_medium=_mean(ap["medium"][:, classes]),
        ap_large=_mean(ap["large"][:, classes]),
        ar=_mean(ar["all"][:, classes]),
        ar_small=_mean(ar["small"][:, classes]),
        ar_medium=_mean(ar["medium"][:, classes]),
        ar_large=_mean(ar["large"][:, classes]),
        ar_by_most={n: _mean(recall[:, classes]) for n, recall in ar_by_most.items()},
    )


def _mean(values: Numbers) -> float | None:
    """The mean of what is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
