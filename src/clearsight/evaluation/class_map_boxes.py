"""How well the boxes around class maps find objects, over a set: Choe et al. 2020, arXiv:2001.07437, section 4.

A map says where its brightest part ends only together with a threshold; MaxBoxAcc gives every method the threshold that
suits it best, one for all pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core.map_boxes import boxes_of, bright, overlap
from clearsight.core.statistics import Interval
from clearsight.errors import Refused
from clearsight.evaluation.resampling import Counts, interval_over_pictures

THRESHOLDS = tuple(k / 100 for k in range(100))
OVERLAPS = (0.3, 0.5, 0.7)
Parts = Literal["largest", "all"]
Scale = Literal["top", "range"]


@dataclass(frozen=True)
class MaxBoxAccuracy:
    """Share of the pictures whose box fits, at the threshold that is best for all of them.

    overlaps (O,): the IoU that is asked for.  accuracy (O,): the share at each.  threshold (O,): the best one, the
    lowest of several.  mean: MaxBoxAccV2 where the overlaps are 0.3, 0.5 and 0.7.  intervals: of each accuracy, and
    mean_interval, 95 %, over draws of pictures, each with the best threshold of its own; None for fewer than seven.
    The threshold is chosen on the pictures that are judged, which flatters: compare with a baseline that may do so too.
    In 200 made-up sets of 50 or 100 pictures the intervals held the figure expected of so many pictures in 93 to 97 %
    of cases; that of all pictures there could be, which is lower, in 76 to 91 %.
    n: pictures.
    """

    overlaps: tuple[float, ...]
    accuracy: tuple[float, ...]
    threshold: tuple[float, ...]
    mean: float
    intervals: tuple[Interval | None, ...]
    mean_interval: Interval | None
    n: int


def map_box(maps: Tensor, threshold: float = 0.2) -> Tensor:
    """The box around the largest connected bright part of each map: (B, 4) float32, x1, y1, x2, y2; nan for none.

    Bright are the places with at least a share of the map's highest value, and above 0; places that touch at a corner
    are connected.  Coordinates are in pixels of the map, and x2 and y2 are those behind the last place.

    Args:
        maps: (B, H, W).
        threshold: share of the map's highest value, from 0 to below 1; 0.2 as in the paper.

    Refused: other shapes, and a threshold out of range.

    Source: Zhou et al. 2016 (CAM), arXiv:1512.04150, section 3.2.

    >>> map_box(torch.tensor([[[0.0, 9.0, 8.0], [1.0, 0.0, 7.0]]])).tolist()
    [[1.0, 0.0, 3.0, 2.0]]
    """
    _check_maps(maps)
    boxes = np.full((len(maps), 4), np.nan)
    for row, places in zip(boxes, bright(maps, threshold).cpu().numpy(), strict=True):
        for found in boxes_of(places)[:1]:
            row[:] = found[:, ::-1].ravel()
    return torch.from_numpy(boxes).float()


def box_overlaps(
    maps: Tensor,
    boxes: Sequence[Tensor],
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    parts: Parts = "largest",
    scale: Scale = "top",
) -> Tensor:
    """IoU of each map's box with the true box that it fits best, at each threshold: (B, T) float32.

    Args:
        maps: (B, H, W).
        boxes: for each picture (M, 4), x1, y1, x2, y2 in pixels of the map, M at least 1.
        thresholds: shares of the map's scale, from 0 to below 1.
        parts: "largest" takes the box of the largest bright part (MaxBoxAcc); "all" those of all parts, of which the
            one that fits best counts (MaxBoxAccV2).
        scale: "top" measures from 0 to the highest value; "range", as the paper does, from the lowest to the highest,
            so that what speaks against the class widens the scale.

    Refused: other shapes, a picture without a box, and a threshold out of range.

    Source: Choe et al. 2020, section 4.2 and its extension arXiv:2007.04178.

    >>> maps = torch.tensor([[[0.0, 9.0, 8.0, 3.0]]])
    >>> box_overlaps(maps, [torch.tensor([[1.0, 0.0, 3.0, 1.0]])], (0.1, 0.5, 0.95))[0].tolist()
    [0.6666666865348816, 1.0, 0.5]
    """
    _check_maps(maps)
    if len(boxes) != len(maps) or any(b.dim() != 2 or b.shape[1] != 4 or not len(b) for b in boxes):
        raise Refused(f"{len(maps)} maps need boxes (M, 4) for each picture, at least one: leave out the others")
    scaled = maps - maps.flatten(1).amin(1)[:, None, None] if scale == "range" else maps
    truth = [b.double().cpu().numpy().reshape(-1, 2, 2)[:, :, ::-1] for b in boxes]
    kept = 1 if parts == "largest" else None
    columns = []
    for threshold in thresholds:
        inside = bright(scaled, threshold).cpu().numpy()
        columns.append([overlap(boxes_of(i)[:kept], t).max(initial=0.0) for i, t in zip(inside, truth, strict=True)])
    return torch.tensor(columns, dtype=torch.float32).T


def max_box_accuracy(
    overlaps: Tensor,
    thresholds: Sequence[float] = THRESHOLDS,
    at: Sequence[float] = OVERLAPS,
    seed: int = 0,
) -> MaxBoxAccuracy:
    """MaxBoxAcc: the share of pictures whose box has an IoU of at least so much, at the best threshold of all.

    Args:
        overlaps: (B, T), as `box_overlaps` gives.
        thresholds: the T thresholds.
        at: the IoU that is asked for, 0 to 1 each; 0.3, 0.5 and 0.7 as for MaxBoxAccV2.
        seed: start of the draws for the intervals.

    Refused: no picture, and numbers of thresholds that differ.

    Source: Choe et al. 2020, equation 3 in section 4.2.

    >>> best = max_box_accuracy(torch.tensor([[0.4, 0.8], [0.6, 0.2]]), (0.1, 0.5), at=(0.3, 0.5))
    >>> best.accuracy, best.threshold, best.mean
    ((1.0, 0.5), (0.1, 0.1), 0.75)
    """
    if not len(overlaps) or overlaps.shape != (len(overlaps), len(thresholds)):
        raise Refused(f"overlaps {tuple(overlaps.shape)}: give (B, {len(thresholds)}), one picture or more")
    fits = np.stack([(overlaps.cpu() >= delta).numpy() for delta in at], 1).astype(np.float64)  # (B, O, T)
    shares = fits.mean(0)
    accuracy = tuple(shares.max(1).tolist())
    *intervals, of_mean = interval_over_pictures(fits, lambda sums: _best(sums, len(fits)), seed, shares=False)
    return MaxBoxAccuracy(
        overlaps=tuple(at),
        accuracy=accuracy,
        threshold=tuple(float(thresholds[k]) for k in shares.argmax(1)),
        mean=sum(accuracy) / len(accuracy),
        intervals=tuple(intervals),
        mean_interval=of_mean,
        n=len(fits),
    )


def _best(sums: Counts, n: int) -> NDArray[np.float64]:
    """Pictures that fit (draws, O, T), of n -> accuracies and their mean (draws, O + 1)."""
    accuracy = sums.max(2) / n
    return np.concatenate([accuracy, accuracy.mean(1, keepdims=True)], 1)


def _check_maps(maps: Tensor) -> None:
    if maps.dim() != 3:
        raise Refused(f"maps {tuple(maps.shape)}: boxes are made of maps (B, H, W)")
