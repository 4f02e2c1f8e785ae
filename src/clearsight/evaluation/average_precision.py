"""Average precision and recall of boxes as COCO defines them, by faster-coco-eval.

Lin et al. 2014, arXiv:1405.0312; https://cocodataset.org/#detection-eval.  The library (Apache-2.0) has the rule of
pycocotools in C++.  What COCO's mean does not show stands beside it: how many true boxes it rests on, and how many of
the false positives it leaves out, because their class has no true box.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clearsight.errors import Refused
from clearsight.evaluation.matching import MOST, match
from clearsight.evaluation.records import BoxSet, Numbers

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # the floats of pycocotools: 0.05 * k differs in the last digit
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
    if most < 1:
        raise Refused(f"most {most}", "count at least one detection of a picture and class")
    numbers = sorted({1, min(10, most), most})
    precision, recall = _library(boxes, numbers)
    truths = boxes.truths_by_class()
    crowds = np.bincount(boxes.truth_labels[boxes.crowd], minlength=len(boxes.classes))
    detections = np.bincount(boxes.labels, minlength=len(boxes.classes))
    matches = match(boxes, [0.5], most)
    unseen = matches.is_wrong()[0] & (truths == 0)[boxes.labels]
    by_class = [
        ClassPrecision(
            label,
            int(truths[k]),
            int(crowds[k]),
            int(detections[k]),
            _figures(precision[:, :, [k]], recall[:, [k]], numbers),
        )
        for k, label in enumerate(boxes.classes)
    ]
    return AveragePrecision(
        _figures(precision, recall, numbers),
        tuple(by_class),
        boxes.pictures,
        int(truths.sum()),
        int(crowds.sum()),
        len(boxes.scores),
        tuple(label for label, n in zip(boxes.classes, truths, strict=True) if n == 0),
        int(unseen.sum()),
        most,
    )


def _library(boxes: BoxSet, numbers: list[int]) -> tuple[Numbers, Numbers]:
    """Precision (IoU, recall, class, size, most) and recall (IoU, class, size, most); -1 where no true box decides."""
    from faster_coco_eval import (
        COCO,
        COCOeval_faster,
    )  # which what evaluates nothing does not wait for

    size = np.maximum(boxes.boxes[:, 2:] - boxes.boxes[:, :2], 0)
    truth_size = boxes.truth_boxes[:, 2:] - boxes.truth_boxes[:, :2]
    truth = _annotations(boxes.truth_picture, boxes.truth_labels, boxes.truth_boxes, truth_size, boxes.area)
    for one, crowd in zip(truth, boxes.crowd.tolist(), strict=True):
        one["iscrowd"] = int(crowd)
    found = _annotations(boxes.picture, boxes.labels, boxes.boxes, size, size.prod(1))
    for one, score in zip(found, boxes.scores.tolist(), strict=True):
        one["score"] = score
    pictures = [{"id": p} for p in range(boxes.pictures)]
    categories = [{"id": k, "name": str(label)} for k, label in enumerate(boxes.classes)]
    sets = [COCO({"images": pictures, "categories": categories, "annotations": rows}) for rows in (truth, found)]
    evaluation = COCOeval_faster(*sets, iouType="bbox")
    evaluation.params.maxDets = numbers
    evaluation.params.areaRngLbl = list(SIZES)
    evaluation.params.areaRng = [list(bounds) for bounds in SIZES.values()]
    evaluation.params.iouThrs = np.asarray(THRESHOLDS)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def _annotations(picture: Any, labels: Any, edges: Numbers, size: Numbers, area: Numbers) -> list[dict[str, Any]]:
    """COCO's records.  Ids count from 1: 0 reads as "unmatched"."""
    rows = np.concatenate([edges[:, :2], size], axis=1).tolist()
    columns = zip(picture.tolist(), labels.tolist(), rows, area.tolist(), strict=True)
    return [
        {"id": i, "image_id": p, "category_id": k, "bbox": box, "area": a, "iscrowd": 0}
        for i, (p, k, box, a) in enumerate(columns, 1)
    ]


def _figures(precision: Numbers, recall: Numbers, numbers: list[int]) -> Precision:
    sizes = list(SIZES)
    at = {round(t, 2): i for i, t in enumerate(THRESHOLDS)}
    ap = {name: _mean(precision[:, :, :, k, -1]) for k, name in enumerate(sizes)}
    ar = {name: _mean(recall[:, :, k, -1]) for k, name in enumerate(sizes)}
    return Precision(
        ap["all"],
        _mean(precision[at[0.5], :, :, 0, -1]),
        _mean(precision[at[0.75], :, :, 0, -1]),
        ap["small"],
        ap["medium"],
        ap["large"],
        ar["all"],
        ar["small"],
        ar["medium"],
        ar["large"],
        {n: _mean(recall[:, :, 0, i]) for i, n in enumerate(numbers)},
    )


def _mean(values: Numbers) -> float | None:
    """The mean of what is defined."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
