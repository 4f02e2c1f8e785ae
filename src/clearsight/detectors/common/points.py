"""Places of a feature map on the picture, and which object each place learns: Tian et al. 2019, arXiv:1904.01355."""

from __future__ import annotations

import torch
from torch import Tensor

NOBODY = -1  # a place that learns background


def points(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """The centres (height * width, 2) of the cells of a map in pixels x, y, row by row.

    >>> points(1, 2, 8, torch.zeros(())).tolist()
    [[4.0, 4.0], [12.0, 4.0]]
    """
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) * stride
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * stride
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], 1)


def distances(places: Tensor, boxes: Tensor) -> Tensor:
    """From places (..., 2) to the left, top, right and bottom sides of boxes (..., 4); negative outside.

    >>> distances(torch.tensor([4.0, 4.0]), torch.tensor([0.0, 1.0, 10.0, 6.0])).tolist()
    [4.0, 3.0, 6.0, 2.0]
    """
    return torch.cat([places - boxes[..., :2], boxes[..., 2:] - places], -1)


def assign(places: Tensor, strides: Tensor, reach: Tensor, boxes: Tensor, *, radius: float = 1.5) -> Tensor:
    """The number of the object that each place learns (N,), int64; NOBODY where there is none.

    A place learns an object if it lies inside its box, less than ``radius`` strides from the centre of the box in both
    directions, and if the side farthest from it is within the reach of its level.  Of several the smallest box wins, of
    equally small ones the first.

    places (N, 2), strides (N,) and reach (N, 2), lowest (excluded) and highest distance in pixels, of the level of each
    place; boxes (M, 4).  Source: arXiv:1904.01355, section 3.1 and 3.2; centre sampling is of its later version.
    """
    if not len(boxes):
        return torch.full((len(places),), NOBODY, device=places.device)
    sides = distances(places[:, None], boxes[None])  # (N, M, 4)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (places[:, None] - centres[None]).abs().amax(2) < radius * strides[:, None]
    far = sides.amax(2)
    taken = near & (sides.amin(2) > 0) & (far > reach[:, :1]) & (far <= reach[:, 1:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).expand(len(places), -1)
    smallest, which = areas.masked_fill(~taken, torch.inf).min(1)
    return torch.where(smallest.isinf(), NOBODY, which)
