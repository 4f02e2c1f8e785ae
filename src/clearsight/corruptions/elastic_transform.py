"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1, after Simard, Steinkraus & Platt 2003."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.resampling import Floats, grid, sampled
from clearsight.corruptions.common.severity import constants

# height and smoothness of the ripples and movement of the corners, in pixels; 244 is as published, for a side of 224
_SMALL = tuple(
    (32 * far, 32 * smooth, 32 * corners)
    for far, smooth, corners in (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )
)
_LARGE = tuple(
    (244 * far, 244 * smooth, 244 * corners)
    for far, smooth, corners in (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )
)


@method(paper="arXiv:1903.12261", claims="common stochastic uneven")
def elastic_transform(x: Tensor, *, severity: int = 3) -> Tensor:
    """A picture on rubber: sheared and stretched as a whole, and rippled in small regions.

    x (B, C, H, W) in [0, 1] -> the same shape.  Both are done in one bilinear reading, where the published program
    reads twice.  The picture goes on beyond its border as in a mirror.

    Args:
        severity: 1 to 5; the constants of ImageNet-C for a shorter side of 224, or of CIFAR-10-C for one of 32 (where
            it is below 84); they grow with the side.  The published severities 1 and 2 stretch the whole picture and 3
            to 5 ripple it, so they are not in order of how far pixels move.

    Source: Hendrycks & Dietterich 2019, section 3.1, after Simard, Steinkraus & Platt 2003.

    One colour stays as it is:

    >>> bool((elastic_transform(torch.full((1, 1, 9, 9), 0.5)) - 0.5).abs().max() < 1e-6)
    True
    """
    (far, smooth, corners), grown = constants(x, severity, _SMALL, _LARGE)
    far, smooth, corners = far * grown, smooth * grown, corners * grown
    chance = 2 * rng.uniform(x.new_empty(len(x), 3, 2, dtype=torch.float64)) - 1
    ripple = 2 * rng.uniform(x.new_empty(len(x), 2, *x.shape[2:], dtype=torch.float64)) - 1
    out = []
    for picture, three, waves in zip(x, chance.numpy(), ripple.numpy(), strict=True):
        rows, columns = grid(x)
        down, right = (far * gaussian_filter(w, smooth, mode="reflect", truncate=3) for w in waves)
        back = inverse_affine(x.shape[2], x.shape[3], corners * three)
        rows, columns = rows + down, columns + right
        to = back @ np.stack([rows.ravel(), columns.ravel(), np.ones(rows.size)])
        out.append(sampled(picture, to[0].reshape(rows.shape), to[1].reshape(rows.shape)))
    return torch.stack(out).clamp(0, 1)


def inverse_affine(high: int, wide: int, moves: Floats) -> Floats:
    """The affine map (2, 3) from a place (row, column, 1) to its origin, where three corners moved by moves (3, 2)."""
    middle, reach = np.array([high // 2, wide // 2]), max(1, min(high, wide) // 3)
    corners = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = np.concatenate([corners + moves, np.ones((3, 1))], 1)
    affine: Floats = np.linalg.solve(moved, corners.astype(np.float64)).T
    return affine
