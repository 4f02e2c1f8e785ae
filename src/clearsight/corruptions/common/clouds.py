"""Clouds by diamond-square, for fog and frost."""

from __future__ import annotations

import torch
from torch import Tensor


def plasma(chance: Tensor, decay: float) -> Tensor:
    """Clouds by diamond-square (Fournier, Fussell & Carpenter 1982, doi:10.1145/358523.358553), on a torus.

    chance (B, n, n), n a power of 2: a number in [0, 1) for each point -> (B, n, n) from 0 to 1 in each picture.  Each
    grid is twice as fine as the one before, and the heights that it adds are smaller by the square of ``decay``.  It is
    the square because the published program multiplies by its amplitude twice.
    """
    n = chance.shape[1]
    high = torch.zeros_like(chance)
    step, size = n, 1.0
    while step >= 2:
        half = step // 2
        corner = high[:, ::step, ::step]
        square = corner + corner.roll(-1, 1)
        high[:, half::step, half::step] = (square + square.roll(-1, 2)) / 4
        high[:, half::step, half::step] += size * (2 * chance[:, half::step, half::step] - 1)
        middle = high[:, half::step, half::step]
        for top, left, along, across in ((0, half, 1, 2), (half, 0, 2, 1)):
            ends = middle + middle.roll(1, along) + corner + corner.roll(-1, across)
            high[:, top::step, left::step] = ends / 4 + size * (2 * chance[:, top::step, left::step] - 1)
        step, size = half, size / decay**2
    low, top_ = high.amin((1, 2), keepdim=True), high.amax((1, 2), keepdim=True)
    return (high - low) / (top_ - low).clamp_min(torch.finfo(high.dtype).tiny)


def power_of_two(n: int) -> int:
    """The smallest power of 2 that is at least n, and at least 2.

    >>> [power_of_two(n) for n in (1, 32, 33, 224)]
    [2, 32, 64, 256]
    """
    return max(2, 1 << (n - 1).bit_length())
