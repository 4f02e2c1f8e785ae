"""What became of every true object from one detector to another, and how many false alarms each has in a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.auditing.box_outcomes import BoxOutcomes, outcomes
from clearsight.auditing.place_evidence import interval_of_ratio
from clearsight.core.statistics import bootstrap
from clearsight.evaluation.gains import Gain
from clearsight.evaluation.paired_boxes import refuse_other_truth
from clearsight.evaluation.records import BoxSet, Flags, Numbers


@dataclass(frozen=True, eq=False)
class ObjectFates:
    """The outcomes of two detectors on the same objects.

    kept, mended, broken, missed: (K,) of the true boxes: found by both, by the second alone, by the first alone, by
    neither; crowds and difficult ones are none of them.
    """

    before: BoxOutcomes
    after: BoxOutcomes
    kept: Flags
    mended: Flags
    broken: Flags
    missed: Flags

    @property
    def objects(self) -> int:
        return int((self.kept | self.mended | self.broken | self.missed).sum())

    def by_picture(self, which: Flags) -> Numbers:
        """How many of the true boxes each picture has: (pictures,)."""
        return self.before.by_picture(which, "objects")

    def alarms(self) -> tuple[Numbers, Numbers]:
        """The false alarms of each picture, before and after: (pictures,) each."""
        return self.before.by_picture(self.before.wrong), self.after.by_picture(self.after.wrong)


def object_fates(before: BoxSet, after: BoxSet, score: float, iou: float = 0.5) -> ObjectFates:
    """The fate of every true box, of detections from a score on, matched by COCO's rule at one IoU.

    Refused: other true boxes.

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> truth = ([[0, 0, 4, 4], [9, 9, 12, 12]], [1, 1])
    >>> first = picture_boxes([[0, 0, 4, 4]], [0.9], [1], *truth)
    >>> second = picture_boxes([[9, 9, 12, 12], [20, 20, 24, 24]], [0.9, 0.8], [1, 1], *truth)
    >>> fates = object_fates(box_set([first]), box_set([second]), 0.3)
    >>> fates.broken.tolist(), fates.mended.tolist(), [int(n.sum()) for n in fates.alarms()]
    ([True, False], [False, True], [0, 1])
    """
    refuse_other_truth(before, after)
    first, second, judged = outcomes(before, score, iou), outcomes(after, score, iou), ~before.crowd
    was, is_now = judged & ~first.missed, judged & ~second.missed
    return ObjectFates(
        first, second, was & is_now, judged & ~was & is_now, was & ~is_now, judged & ~was & ~is_now
    )  # fmt: skip


def found_gain(fates: ObjectFates, seed: int) -> Gain:
    """The share of the objects that are found, before and after.

    The interval is a bootstrap over pictures.  McNemar's test, which takes each object by itself, would be too sure:
    the objects of a picture are found or missed together.
    """
    objects = fates.by_picture(fates.kept | fates.mended | fates.broken | fates.missed)
    change = fates.by_picture(fates.mended) - fates.by_picture(fates.broken)
    before = fates.by_picture(fates.kept | fates.broken)
    return gain_of_ratio(before, before + change, objects, seed)


def gain_of_ratio(before: Numbers, after: Numbers, whole: Numbers, seed: int) -> Gain:
    """Two sums by the same sum over pictures, (n,) each; undefined where that sum is 0."""
    total = float(whole.sum())
    if not total:
        return Gain(None, None, None)
    interval = interval_of_ratio(after - before, whole, seed, shares=False)
    return Gain(float(before.sum()) / total, float(after.sum()) / total, interval)


def gain_of_mean(before: Numbers, after: Numbers, seed: int) -> Gain:
    """Two means over the same pictures, (n,) each."""
    return Gain(float(np.mean(before)), float(np.mean(after)), bootstrap((after - before).tolist(), seed))
