"""Padding, Gaussian filters, and blur along an angle."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def surrounded(x: Tensor, n: int, *, mirror: bool = True) -> Tensor:
    """Pad x (..., H, W) by n pixels on each side: mirrored at the border pixels, or with these repeated.

    >>> surrounded(torch.tensor([[[1.0, 2.0, 3.0]]]), 2)[0, 0].tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """
    mode = "reflect" if mirror else "edge"
    rows, columns = (torch.from_numpy(np.pad(np.arange(side), n, mode=mode)) for side in x.shape[-2:])  # type: ignore[call-overload]
    return x[..., rows[:, None], columns]


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter every channel of x (B, C, H, W) with one kernel (k, k), k odd; the border is mirrored."""
    wide = surrounded(x, kernel.shape[0] // 2).flatten(0, 1)[:, None]
    return torch.nn.functional.conv2d(wide, kernel.to(x)[None, None]).view_as(x)


def bell(n: int, sigma: float) -> Tensor:
    """A Gaussian at the integers from -n to n, which sums to 1: (2n + 1,)."""
    at = torch.arange(-n, n + 1, dtype=torch.float64)
    weight = torch.exp(-at.square() / (2 * sigma * sigma)) if sigma else (at == 0).double()
    return weight / weight.sum()


def smoothed(x: Tensor, sigma: float, *, truncate: float = 4.0) -> Tensor:
    """Filter x (B, C, H, W) with a Gaussian of sigma pixels, cut off at ``truncate`` sigmas; the border is repeated."""
    n = int(truncate * sigma + 0.5)
    if not n:
        return x
    line = bell(n, sigma).to(x)
    wide = surrounded(x, n, mirror=False).flatten(0, 1)[:, None]
    down = torch.nn.functional.conv2d(wide, line[None, None, :, None])
    return torch.nn.functional.conv2d(down, line[None, None, None]).view_as(x)


def trail(radius: float, sigma: float) -> Tensor:
    """The weights of the trail at 0, 1, 2, ... pixels behind a point: half a Gaussian, which sums to 1.

    >>> trail(1, 1e9).tolist() == [1 / 3] * 3
    True
    """
    behind = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64)
    weight = torch.exp(-behind.square() / (2 * sigma * sigma))
    return weight / weight.sum()


def dragged(x: Tensor, weight: Tensor, angle: Tensor) -> Tensor:
    """Blur x (B, C, H, W) along each picture's angle (B,), as if it moved while exposed: weight (n,) behind each pixel.

    angle: in degrees, 0 to the right and 90 down.  The nearest pixels on that line are taken; the border is repeated.
    """
    high, wide = x.shape[2:]
    reach = len(weight) - 1
    around = surrounded(x, reach, mirror=False)
    out = torch.zeros_like(x)
    for i, degrees in enumerate(angle.tolist()):
        along, down = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        for k, w in enumerate(weight.tolist()):
            top, left = reach - round(k * down), reach - round(k * along)
            out[i] += w * around[i, :, top : top + high, left : left + wide]
    return out
