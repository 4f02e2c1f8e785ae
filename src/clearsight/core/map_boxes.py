"""From maps to boxes: the box around the brightest connected places, and how well it fits boxes of the truth.

A box is (2, D): the first place, and the place behind the last, along each of the D axes of the map.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.errors import Refused

Boxes = NDArray[np.float64]  # (M, 2, D)


def boxes_of(inside: NDArray[np.bool_]) -> Boxes:
    """The box around each connected part of inside (*S): (M, 2, D), that of the most places first.

    Places that touch at a corner are connected.  Of parts of one size the first in reading order comes first.

    >>> boxes_of(np.array([[1, 0, 0, 0], [0, 0, 1, 1]], dtype=bool)).tolist()
    [[[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [1.0, 1.0]]]
    """
    from scipy import ndimage  # half a second, which what looks for no box does not wait for

    parts, n = ndimage.label(inside, np.ones((3,) * inside.ndim))
    boxes = np.zeros((n, 2, inside.ndim))
    if n == 0:
        return boxes
    places = np.nonzero(parts)
    by_part = np.argsort(parts[places], kind="stable")
    sizes = np.bincount(parts[places])[1:]
    starts = np.cumsum(sizes) - sizes  # a loop over thousands of parts of a noisy map takes ten times as long
    for axis, at in enumerate(places):
        boxes[:, 0, axis] = np.minimum.reduceat(at[by_part], starts)
        boxes[:, 1, axis] = np.maximum.reduceat(at[by_part], starts) + 1
    return boxes[np.argsort(-sizes, kind="stable")]


def overlap(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each box (M, 2, D) with each of the others (N, 2, D): (M, N); 0 without any volume.

    Squares of side n, shifted by k along an axis: (n - k) / (n + k).

    >>> overlap(np.array([[[0.0, 0.0], [4.0, 4.0]]]), np.array([[[1.0, 0.0], [5.0, 4.0]]])).item()
    0.6
    """
    one, other = boxes[:, None], others[None]
    both = (np.minimum(one[:, :, 1], other[:, :, 1]) - np.maximum(one[:, :, 0], other[:, :, 0])).clip(0).prod(-1)
    union = np.diff(one, axis=2).prod((2, 3)) + np.diff(other, axis=2).prod((2, 3)) - both
    shares: NDArray[np.float64] = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return shares


def bright(maps: Tensor, threshold: float) -> Tensor:
    """bool (B, *S): the places with at least a share of the map's highest value, and above 0.

    Refused: a share that is not from 0 to below 1.
    """
    if not 0 <= threshold < 1:
        raise Refused(f"threshold, a share of the highest value, must be at least 0 and below 1, not {threshold:g}")
    flat = maps.flatten(1)
    return ((flat >= threshold * flat.amax(1, keepdim=True)) & (flat > 0)).view_as(maps)


def box_overlap(maps: Tensor, regions: Tensor, threshold: float) -> Tensor:
    """IoU of the box around a map's largest bright part with the best box of a region: (B,); nan without a region.

    maps (B, *S), regions (B, *S) bool: each connected part of a region has one box.  0 for a map with nothing positive.

    >>> maps, regions = torch.tensor([[9.0, 1.0, 8.0, 9.0]]), torch.tensor([[True, False, False, True]])
    >>> box_overlap(maps, regions, 0.5).tolist()  # places 2 and 3, of which the second part has one
    [0.5]
    """
    values = []
    for places, region in zip(bright(maps, threshold).cpu().numpy(), regions.cpu().numpy(), strict=True):
        truth = boxes_of(region)
        best = overlap(boxes_of(places)[:1], truth).max(initial=0.0)
        values.append(best if len(truth) else np.nan)
    return torch.tensor(values, dtype=torch.float32, device=maps.device)
