"""Which kinds of error a detector makes, and what each costs: by the types of TIDE.

Bolya, Foley, Hays & Hoffman 2020, arXiv:2008.08115, section 2.  Each false positive has one type, and true boxes that
no detection could be mended to find are missed.  What a type costs is how much AP rises when an oracle mends that type
alone.  These rises do not add up to what is missing, because one error can hide another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clearsight.errors import Refused
from clearsight.evaluation.curves import average_precision_of
from clearsight.evaluation.matching import MOST, match, overlaps, pairs
from clearsight.evaluation.records import BoxSet, Flags, Numbers, Whole

TYPES = ("class", "place", "both", "duplicate", "background")
RIGHT, IGNORED = "right", "ignored"  # which are no errors


@dataclass(frozen=True)
class ErrorTypes:
    """How many errors of each type there are, and what each costs."""

    ap: float | None  # COCO's AP at the one IoU; None without true boxes
    counts: dict[str, int]  # the five types of false positives, and "missed"
    costs: dict[str, float | None]  # the rise of AP when errors of that type alone are mended, at least 0
    of_detection: tuple[str, ...]  # the type of each detection, "right" or "ignored"
    missed: tuple[int, ...]  # places of true boxes that no detection finds, not even when it is mended
    iou: float
    background: float


@dataclass(frozen=True)
class JudgedErrors:
    """Each of D detections and K true boxes.

    right, wrong: (D,).  kind: (D,) places in TYPES, -1 of what is not wrong.  object_of: (D,) the true box that a class
    or place error means, -1 of others.  used, missed: (K,) true boxes that a right detection has, and that no detection
    could be mended to find.
    """

    right: Flags
    wrong: Flags
    kind: Whole
    object_of: Whole
    used: Flags
    missed: Flags


@dataclass(frozen=True)
class Oracle:
    """D detections with one type of error mended, and which of the true boxes (K,) still count."""

    name: str
    labels: Whole
    right: Flags
    wrong: Flags
    counted: Flags


def error_types(boxes: BoxSet, iou: float = 0.5, background: float = 0.1, most: int = MOST) -> ErrorTypes:
    """The type of each false positive, the true boxes that are missed, and what each type costs in AP.

    In this order, for false positives of COCO's matching: in a picture without true boxes it is background; place:
    IoU with an object of its class from background to iou; class: IoU at least iou with an object of another class;
    duplicate: IoU at least iou with an object of its class that a better detection has; background: IoU at most
    background with everything; else both.  Detections that a crowd takes are ignored; crowds are no objects here.

    The oracles: class and place errors become right if their object is free and they are the best such error on it, and
    go away if not; the other false positives go away; missed objects are no longer counted.

    Args:
        boxes: detections and true boxes of all pictures.
        iou: what a right detection needs at least.
        background: below or at which a detection has nothing to do with an object.
        most: at most so many detections of each picture and class count, the best ones.

    Refused: a background that is not below iou.

    A box of the wrong class, where the right class has no detection: mended, it would give the whole AP.

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> found = error_types(box_set([picture_boxes([[0, 0, 4, 4]], [0.9], [2], [[0, 0, 4, 4]], [1])]))
    >>> found.of_detection, round(found.costs["class"], 6), found.counts["missed"]
    (('class',), 1.0, 0)
    """
    if not 0 <= background < iou:
        raise Refused(f"background {background} is not below iou {iou}", "give 0 <= background < iou")
    of = judged_errors(boxes, iou, background, most)
    before = _mean_precision(boxes, boxes.labels, of.right, of.wrong, boxes.truths_by_class())
    costs: dict[str, float | None] = {}
    for oracle in oracles(boxes, of):
        truths = np.bincount(boxes.truth_labels[oracle.counted], minlength=len(boxes.classes))
        after = _mean_precision(boxes, oracle.labels, oracle.right, oracle.wrong, truths)
        costs[oracle.name] = _rise(before, after)
    counts = {name: int((of.kind == i).sum()) for i, name in enumerate(TYPES)}
    counts["missed"] = int(of.missed.sum())
    words = np.where(of.right, RIGHT, np.where(of.wrong, np.asarray(TYPES)[of.kind], IGNORED))
    places = tuple(np.flatnonzero(of.missed).tolist())
    return ErrorTypes(before, counts, costs, tuple(words.tolist()), places, iou, background)


def judged_errors(boxes: BoxSet, iou: float, background: float, most: int = MOST) -> JudgedErrors:
    """What `error_types` counts, of each detection and each true box.  The arguments are those of `error_types`."""
    matches = match(boxes, [iou], most)
    right, wrong = matches.is_right()[0], matches.is_wrong()[0]
    used = np.zeros(len(boxes.crowd), dtype=bool)
    used[matches.truth[0][right]] = True
    kind, object_of = _types(boxes, wrong, iou, background)
    could_be_found = used.copy()
    could_be_found[object_of[object_of >= 0]] = True
    return JudgedErrors(right, wrong, kind, object_of, used, ~could_be_found & ~boxes.crowd)


def oracles(boxes: BoxSet, of: JudgedErrors) -> Iterator[Oracle]:
    """The same detections with one type of error mended, for each type."""
    for i, name in enumerate(TYPES):
        labels, now_right = boxes.labels, of.right
        if name in ("class", "place"):
            mended = _mended(boxes, np.flatnonzero(of.kind == i), of.object_of, of.used)
            labels, now_right = labels.copy(), of.right.copy()
            labels[mended] = boxes.truth_labels[of.object_of[mended]]
            now_right[mended] = True
        yield Oracle(name, labels, now_right, of.wrong & (of.kind != i), ~boxes.crowd)
    yield Oracle("missed", boxes.labels, of.right, of.wrong, ~boxes.crowd & ~of.missed)


def _types(boxes: BoxSet, wrong: Flags, iou: float, background: float) -> tuple[Whole, Whole]:
    """The type of each false positive, -1 of others, and for class and place errors the object meant, -1 of others."""
    detection, truth = pairs(boxes)
    asked = wrong[detection] & ~boxes.crowd[truth]
    detection, truth = detection[asked], truth[asked]
    overlap = overlaps(boxes, detection, truth)
    same = boxes.labels[detection] == boxes.truth_labels[truth]
    of_class, nearest = _highest(len(wrong), detection, truth, np.where(same, overlap, 0.0))
    of_others, other = _highest(len(wrong), detection, truth, np.where(same, 0.0, overlap))
    of_any = np.maximum(of_class, of_others)
    rules = [
        (background <= of_class) & (of_class <= iou) & (of_class > 0),
        of_others >= iou,
        of_class >= iou,  # a better detection has that object, or this one would
        of_any <= background,
    ]
    kind = np.select(rules, [TYPES.index(name) for name in ("place", "class", "duplicate", "background")], 2)
    kind = np.where(wrong, kind, -1)
    object_of = np.select([kind == TYPES.index("place"), kind == TYPES.index("class")], [nearest, other], -1)
    return kind, object_of


def _highest(n: int, detection: Whole, truth: Whole, overlap: Numbers) -> tuple[Numbers, Whole]:
    """The highest overlap of each detection, and with which true box: of equal ones the first; 0 and -1 without any."""
    highest, which = np.zeros(n), np.full(n, -1)
    order = np.lexsort((truth, -overlap, detection))
    first = order[np.diff(detection[order], prepend=-1) != 0]
    highest[detection[first]], which[detection[first]] = overlap[first], truth[first]
    return highest, which


def _mended(boxes: BoxSet, errors: Whole, object_of: Whole, used: Flags) -> Whole:
    """The errors that become right: the best one on each object that is free."""
    errors = errors[~used[object_of[errors]]]
    by_score = errors[np.argsort(-boxes.scores[errors], kind="stable")]
    _, first = np.unique(object_of[by_score], return_index=True)
    return by_score[first]


def _mean_precision(boxes: BoxSet, labels: Whole, right: Flags, wrong: Flags, truths: Whole) -> float | None:
    """COCO's average precision, mean over the classes with true boxes."""
    order = np.lexsort((-boxes.scores, labels))
    order = order[(right | wrong)[order]]
    starts = np.searchsorted(labels[order], np.arange(len(boxes.classes) + 1))
    values = []
    for k, n in enumerate(truths.tolist()):
        of_class = order[starts[k] : starts[k + 1]]
        value = average_precision_of(right[of_class], wrong[of_class], n)
        if value is not None:
            values.append(value)
    return float(np.mean(values)) if values else None


def _rise(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)
