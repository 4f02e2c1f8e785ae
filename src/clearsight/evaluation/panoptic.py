"""Panoptic quality: Kirillov, He, Girshick, Rother & Dollár 2019, arXiv:1801.00868, equations 1 and 2, section 4.2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core.statistics import Interval
from clearsight.errors import Refused
from clearsight.evaluation.resampling import Counts, interval_over_pictures, mean_of_defined, ratio

MEANS = ("pq", "sq", "rq")
MATCH = 0.5  # above it at most one segment can match, because segments do not overlap


@dataclass(frozen=True)
class Segments:
    """The segments of one picture, which do not overlap.

    ids (H, W), whole numbers: the segment of each pixel, 0 for none (void).  classes: id -> class number.  crowd: ids
    of regions of many objects, in the truth alone; nobody has to find them, and answers inside them are no mistakes.
    """

    ids: Tensor
    classes: Mapping[int, int]
    crowd: frozenset[int] = frozenset()


@dataclass(frozen=True)
class PanopticScores:
    """Means over the classes that have a match, a false alarm or a miss; nan without any.

    pq, sq, rq: panoptic, segmentation and recognition quality.  Of each class PQ is SQ x RQ; of the means it is not.
    by_class (3, K) float64: PQ, SQ and RQ of each class, nan where it appears nowhere; SQ is 0 without a match.
    counts (3, K) int64: matches, false alarms, misses.  intervals: of the means by name, 95 %, over draws of pictures;
    None for fewer than seven.  n: pictures.
    """

    pq: float
    sq: float
    rq: float
    by_class: NDArray[np.float64]
    counts: NDArray[np.int64]
    intervals: dict[str, Interval | None]
    n: int


@dataclass
class PanopticCounts:
    """Matches of segments, counted one picture after another: 4 x classes numbers for each picture.

    A predicted and a true segment match if they are of one class and their IoU is above 0.5; the union leaves out the
    pixels of the prediction where the truth is void.  A predicted segment that matches nothing and lies more than half
    in void or in crowds of its class is no false alarm.

    Args:
        classes: number of classes K; class numbers are 0 to K - 1.

    Refused: in `add`, pictures of two sizes, a class out of range, an id without a class or without pixels, and a crowd
    in a prediction.

    >>> truth = Segments(torch.tensor([[1, 1, 1, 2]]), {1: 0, 2: 0})
    >>> counts = PanopticCounts(1)
    >>> counts.add(Segments(torch.tensor([[7, 7, 8, 9]]), {7: 0, 8: 0, 9: 0}), truth)
    >>> scores = counts.scores()
    >>> scores.counts[:, 0].tolist()  # 7 and 9 match with IoU 2/3 and 1; 8 is a false alarm
    [2, 1, 0]
    >>> round(scores.pq, 4) == round((2 / 3 + 1) / (2 + 1 / 2), 4)
    True
    """

    classes: int
    per_picture: list[NDArray[np.float64]] = field(init=False, default_factory=list)  # (4, K): IoU, TP, FP, FN

    def add(self, prediction: Segments, truth: Segments) -> None:
        """Count one picture."""
        if prediction.ids.shape != truth.ids.shape:
            raise Refused(
                f"segments of {tuple(prediction.ids.shape)} and {tuple(truth.ids.shape)} pixels are not of one picture",
                "give both in the picture's own size",
            )
        if prediction.crowd:
            raise Refused(f"segment {min(prediction.crowd)} of the prediction is a crowd: a model answers with objects")
        areas_said, areas_true = (_areas(s, self.classes, w) for s, w in ((prediction, "prediction"), (truth, "truth")))
        shared = _shared_areas(prediction.ids, truth.ids)
        counts = np.zeros((4, self.classes))
        matched_said, matched_true = set(), set()
        for (said, true), both in shared.items():
            if 0 in (said, true) or true in truth.crowd or prediction.classes[said] != truth.classes[true]:
                continue
            iou = both / (areas_said[said] + areas_true[true] - both - shared.get((said, 0), 0))
            if iou > MATCH:
                counts[:2, truth.classes[true]] += iou, 1
                matched_said.add(said)
                matched_true.add(true)
        for said in areas_said.keys() - matched_said:
            k = prediction.classes[said]
            excused = [0, *(c for c in truth.crowd if truth.classes[c] == k)]
            if sum(shared.get((said, true), 0) for true in excused) <= areas_said[said] / 2:
                counts[2, k] += 1
        for true in areas_true.keys() - matched_true - truth.crowd:
            counts[3, truth.classes[true]] += 1
        self.per_picture.append(counts)

    def scores(self, seed: int = 0) -> PanopticScores:
        """The scores of all pictures so far; seed: start of the draws for the intervals."""
        rows = np.array(self.per_picture, dtype=np.float64).reshape(-1, 4, self.classes)
        total = rows.sum(0)
        by_class = _qualities(total[None])[0]
        means = dict(zip(MEANS, _means(total[None])[0].tolist(), strict=True))
        intervals = dict(zip(MEANS, interval_over_pictures(rows, _means, seed), strict=True))
        return PanopticScores(
            **means, by_class=by_class, counts=total[1:].astype(np.int64), intervals=intervals, n=len(rows)
        )


def _areas(segments: Segments, classes: int, name: str) -> dict[int, int]:
    """id -> pixels, without void.  Refused: ids and classes that do not fit."""
    if segments.ids.is_floating_point() or segments.ids.dtype == torch.bool:
        raise Refused(f"ids of the {name} are {segments.ids.dtype}: give whole numbers")
    ids, sizes = np.unique(segments.ids.cpu().numpy(), return_counts=True)
    areas = {i: size for i, size in zip(ids.tolist(), sizes.tolist(), strict=True) if i != 0}
    for i in sorted(areas.keys() ^ segments.classes.keys()):
        lacks = "class" if i in areas else "pixels"
        raise Refused(f"segment {i} of the {name} has no {lacks}: picture and list are not of one annotation")
    for i, k in segments.classes.items():
        if not 0 <= k < classes:
            raise Refused(f"segment {i} of the {name} is of class {k}: classes are 0 to {classes - 1}")
    for i in sorted(segments.crowd - areas.keys()):
        raise Refused(f"crowd {i} of the {name} is no segment: name ids of the picture")
    return areas


def _shared_areas(prediction: Tensor, truth: Tensor) -> dict[tuple[int, int], int]:
    """(predicted id, true id) -> pixels."""
    said, said_at = np.unique(prediction.cpu().numpy(), return_inverse=True)
    true, true_at = np.unique(truth.cpu().numpy(), return_inverse=True)
    cells, sizes = np.unique(said_at.ravel() * len(true) + true_at.ravel(), return_counts=True)
    pairs = zip(said[cells // len(true)].tolist(), true[cells % len(true)].tolist(), strict=True)
    return dict(zip(pairs, sizes.tolist(), strict=True))


def _qualities(counts: Counts) -> Counts:
    """Counts (draws, 4, K) -> PQ, SQ and RQ (draws, 3, K)."""
    iou, hits, alarms, misses = np.moveaxis(counts, 1, 0)
    rq = ratio(hits, hits + alarms / 2 + misses / 2)
    sq = np.where(np.isnan(rq), np.nan, np.nan_to_num(ratio(iou, hits)))
    return np.stack([sq * rq, sq, rq], 1)


def _means(counts: Counts) -> Counts:
    """Counts (draws, 4, K) -> the means (draws, 3) in the order of MEANS."""
    return mean_of_defined(_qualities(counts))
