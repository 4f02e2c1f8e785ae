"""What evaluation reads: the boxes that a detector found and those that people drew, of one picture and of a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearsight.errors import NotFinite, Refused

Numbers = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PictureBoxes:
    """The detections and the true boxes of one picture; ``picture_boxes`` makes and checks it.

    Boxes are x1, y1, x2, y2: edges in pixels of the original picture.  crowd: a true box that stands for many objects,
    or that is not to be judged: it is never missed, and what lies in it is no false positive.  area: square pixels of
    the object, which decides its size; of its mask in COCO, of its box elsewhere.
    """

    boxes: Numbers  # (M, 4)
    scores: Numbers  # (M,)
    labels: Whole  # (M,)
    truth_boxes: Numbers  # (K, 4)
    truth_labels: Whole  # (K,)
    crowd: Flags  # (K,)
    area: Numbers  # (K,)


@dataclass(frozen=True)
class BoxSet:
    """The boxes of all pictures, one after another; ``box_set`` makes it.

    Classes are counted from 0 in the order of ``classes``, which holds their numbers in the data.
    """

    pictures: int
    classes: tuple[int, ...]
    boxes: Numbers  # (D, 4), the detections
    scores: Numbers  # (D,)
    labels: Whole  # (D,), places in classes
    picture: Whole  # (D,), never falling
    truth_boxes: Numbers  # (K, 4)
    truth_labels: Whole  # (K,), places in classes
    truth_picture: Whole  # (K,), never falling
    crowd: Flags  # (K,)
    area: Numbers  # (K,)

    def truths_by_class(self) -> Whole:
        """How many true boxes each class has, crowds left out: (C,)."""
        return np.bincount(self.truth_labels[~self.crowd], minlength=len(self.classes)).astype(np.int64)

    def above(self, floor: float) -> BoxSet:
        """The same set with the detections alone whose score is at least the floor."""
        return self.with_detections(self.scores >= floor)

    def without_crowds(self) -> BoxSet:
        """The same set, in which every true box counts as one object."""
        return replace(self, crowd=np.zeros_like(self.crowd))

    def with_detections(self, kept: Flags | Whole) -> BoxSet:
        """The same set with these detections alone, in this order."""
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            labels=self.labels[kept],
            picture=self.picture[kept],
        )


def picture_boxes(
    boxes: Any,
    scores: Any,
    labels: Any,
    truth_boxes: Any,
    truth_labels: Any,
    crowd: Any = None,
    area: Any = None,
) -> PictureBoxes:
    """The boxes of one picture, checked.  Arrays, tensors or lists are taken; without boxes give empty ones.

    Args:
        boxes: detections as edges x1, y1, x2, y2 in pixels of the original picture (M, 4); an empty one counts as a
            detection that overlaps nothing.
        scores: how sure the detector is of each (M,).
        labels: their classes, whole numbers (M,).
        truth_boxes: true boxes (K, 4).
        truth_labels: their classes (K,).
        crowd: which true boxes stand for many objects, or are not to be judged (K,); none without it.
        area: square pixels of each true object (K,); those of its box without it.

    Refused: shapes that do not fit, numbers that are not finite, true boxes that are turned over, classes that are no
    whole numbers, areas below 0.

    >>> one = picture_boxes([[0, 0, 4, 4]], [0.9], [3], [[0, 0, 4, 5]], [3])
    >>> one.area.tolist(), one.crowd.tolist()
    ([20.0], [False])
    """
    found = _table(boxes, "boxes")
    truth = _table(truth_boxes, "truth_boxes")
    turned = np.flatnonzero((truth[:, 2:] < truth[:, :2]).any(1))
    if len(turned):
        k = int(turned[0])
        raise Refused(f"true box {k} is turned over: {truth[k].tolist()}", "give x1 <= x2 and y1 <= y2")
    sides = truth[:, 2:] - truth[:, :2]
    areas = sides.prod(1) if area is None else _column(area, len(truth), "area")
    if (areas < 0).any():
        raise Refused(f"the area of true box {int(np.flatnonzero(areas < 0)[0])} is below 0")
    crowds = np.zeros(len(truth)) if crowd is None else _column(crowd, len(truth), "crowd")
    return PictureBoxes(
        found,
        _column(scores, len(found), "scores"),
        _classes(labels, len(found), "labels"),
        truth,
        _classes(truth_labels, len(truth), "truth_labels"),
        crowds.astype(bool),
        areas,
    )


def box_set(pictures: Iterable[PictureBoxes], classes: Sequence[int] | None = None) -> BoxSet:
    """The boxes of all pictures one after another; pictures without any box belong to it too.

    Args:
        pictures: the records of the pictures, in their order, which decides between detections of equal scores.
        classes: the classes that are judged, each number once; without it all that occur, sorted.

    Refused: no pictures, a class twice, and boxes of a class that is not among them.

    >>> one = picture_boxes([[0, 0, 4, 4]], [0.9], [17], [[0, 0, 4, 5]], [3])
    >>> box_set([one]).classes, box_set([one]).labels.tolist()
    ((3, 17), [1])
    """
    records = list(pictures)
    if not records:
        raise Refused("there are no pictures to evaluate", "give at least one")
    labels = np.concatenate([r.labels for r in records])
    truth_labels = np.concatenate([r.truth_labels for r in records])
    occurring = np.unique(np.concatenate([labels, truth_labels]))
    known = occurring if classes is None else np.asarray(list(classes), dtype=np.int64)
    if len(np.unique(known)) < len(known):
        raise Refused("a class is given twice", "give each number once")
    strange = np.setdiff1d(occurring, known)
    if len(strange):
        given = ", ".join(map(str, known[:9].tolist())) + (" and more" if len(known) > 9 else "")
        raise Refused(f"boxes are of class {int(strange[0])}, which is not judged", f"the classes given are {given}")
    order = known.argsort()
    of_picture = np.arange(len(records))
    return BoxSet(
        len(records),
        tuple(known.tolist()),
        np.concatenate([r.boxes for r in records]),
        np.concatenate([r.scores for r in records]),
        order[np.searchsorted(known, labels, sorter=order)] if len(labels) else labels,
        np.repeat(of_picture, [len(r.scores) for r in records]),
        np.concatenate([r.truth_boxes for r in records]),
        order[np.searchsorted(known, truth_labels, sorter=order)] if len(truth_labels) else truth_labels,
        np.repeat(of_picture, [len(r.truth_labels) for r in records]),
        np.concatenate([r.crowd for r in records]),
        np.concatenate([r.area for r in records]),
    )


def _array(values: Any, name: str) -> Numbers:
    """Numbers of a tensor, an array or a list, as a copy of double precision."""
    values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise NotFinite(f"{name} holds numbers that are not finite", "leave those boxes out, and find out why")
    return numbers


def _table(values: Any, name: str) -> Numbers:
    numbers = _array(values, name)
    if numbers.size == 0:
        return np.zeros((0, 4))
    if numbers.ndim != 2 or numbers.shape[1] != 4:
        raise Refused(f"{name} is of shape {numbers.shape}", "give (N, 4): x1, y1, x2, y2")
    return numbers


def _column(values: Any, n: int, name: str) -> Numbers:
    numbers = _array(values, name)
    if numbers.shape != (n,):
        raise Refused(f"{name} is of shape {numbers.shape} beside {n} boxes", "give one number for each box")
    return numbers


def _classes(values: Any, n: int, name: str) -> Whole:
    numbers = _column(values, n, name)
    if (numbers != np.round(numbers)).any():
        raise Refused(f"{name} holds classes that are no whole numbers")
    return numbers.astype(np.int64)
