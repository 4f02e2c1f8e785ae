"""Landmarks as heatmaps: the Gaussians that a network is trained to give, their loss, and the points found in them.

Points are (x, y) in pixels of the picture that the network sees; the middle of its first pixel is (0.5, 0.5), so that a
picture of W pixels reaches from 0 to W, as for boxes.  stride: pixels of the picture for each place of a heatmap.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clearsight.errors import Refused

SIGMA = 2.0  # places of the heatmap, as in the code of Xiao, Wu & Wei 2018, arXiv:1804.06208


def gaussians(points: Tensor, size: tuple[int, int], stride: int, sigma: float = SIGMA) -> Tensor:
    """Heat that is 1 at each point and falls as a Gaussian: points (B, K, 2) -> (B, K, h, w) for size (h, w).

    exp(-d^2 / (2 sigma^2)), where d is the distance in places of the heatmap from the middle of a place to the point,
    which may lie between places.  sigma: in places of the heatmap.

    >>> gaussians(torch.tensor([[[6.0, 2.0]]]), (1, 3), stride=4)[0, 0, 0, 1]
    tensor(1.)
    """
    if sigma <= 0:
        raise Refused(f"a Gaussian of sigma {sigma:g}: it must be above 0")
    at = points[..., None, :] / stride - 0.5
    x = torch.arange(size[1], device=points.device) - at[..., 0]
    y = torch.arange(size[0], device=points.device) - at[..., 1]
    lines = [torch.exp(-(d**2) / (2 * sigma**2)) for d in (y, x)]
    return lines[0][..., :, None] * lines[1][..., None, :]


def heatmap_loss(heat: Tensor, points: Tensor, visible: Tensor, stride: int, sigma: float = SIGMA) -> Tensor:
    """The mean square of what the heat (B, K, h, w) differs by from the Gaussians of the visible landmarks -> ().

    points (B, K, 2); visible (B, K) bool: whether a landmark is marked in a picture; heat of others is not judged.  A
    batch with none gives 0, with zero gradients.

    >>> heatmap_loss(torch.zeros(1, 1, 1, 1), torch.tensor([[[2.0, 2.0]]]), torch.tensor([[True]]), stride=4)
    tensor(1.)
    """
    if points.shape != (*heat.shape[:2], 2) or visible.shape != heat.shape[:2]:
        raise Refused(
            f"heat of shape {tuple(heat.shape)}, points {tuple(points.shape)}, visible {tuple(visible.shape)}: give "
            "(B, K, h, w), (B, K, 2) and (B, K)"
        )
    if not visible.any():
        return heat.sum() * 0
    wanted = gaussians(points[visible][None], (heat.shape[2], heat.shape[3]), stride, sigma)[0]
    return (heat[visible] - wanted.to(heat)).square().mean()


def landmarks(
    heat: Tensor, stride: int, how: Literal["soft", "quarter"] = "soft", sigma: float = SIGMA
) -> tuple[Tensor, Tensor]:
    """The point of each heatmap and its height there: heat (B, K, h, w) -> points (B, K, 2), heat (B, K).

    "quarter" is the middle of the hottest place, moved by a quarter of a place along each axis towards its hotter
    neighbour: for a Gaussian within a quarter of a place.  "soft" is the mean of the places around the hottest one,
    each weighted by its heat above 0: for a Gaussian within 0.02 places, and differentiable.  It reads three sigma on
    either side; nearer to the border it reads as far as the border is, on both sides, so the point stays within half a
    place of the hottest one.

    Source: the quarter, Newell, Yang & Deng 2016, arXiv:1603.06937; the mean, Sun, Xiao, Wei, Liang & Wei
    2018, arXiv:1711.08229, here of the heat around its maximum.

    >>> heat = gaussians(torch.tensor([[[27.0, 33.0]]]), (16, 16), stride=4)
    >>> landmarks(heat, stride=4)[0].round(decimals=1).tolist()
    [[[27.0, 33.0]]]
    """
    w = heat.shape[3]
    height, best = heat.flatten(2).max(2)
    row, column = best // w, best % w
    middle = torch.stack([column, row], -1)
    shift = _to_hotter(heat, row, column) if how == "quarter" else _to_mean(heat, row, column, sigma)
    return (middle + 0.5 + shift) * stride, height


def _to_hotter(heat: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """A quarter towards the hotter of two neighbours along x and y; none where they are equal or one is missing."""
    shifts = []
    for best, line in ((column, _line(heat, row, 2)), (row, _line(heat, column, 3))):
        last = line.shape[-1] - 1
        after = line.gather(2, (best + 1).clamp(max=last)[..., None])[..., 0]
        before = line.gather(2, (best - 1).clamp(min=0)[..., None])[..., 0]
        inside = (best > 0) & (best < last)
        shifts.append(0.25 * torch.sign(after - before) * inside)
    return torch.stack(shifts, -1)


def _line(heat: Tensor, at: Tensor, axis: int) -> Tensor:
    """The row (axis 2) or column (axis 3) of each heatmap (B, K, h, w) that at (B, K) names: (B, K, length)."""
    length = heat.shape[5 - axis]
    wide = at[..., None, None].expand(*at.shape, *((1, length) if axis == 2 else (length, 1)))
    return heat.gather(axis, wide).flatten(2)


def _to_mean(heat: Tensor, row: Tensor, column: Tensor, sigma: float) -> Tensor:
    """From the hottest place to the mean of the places around it, along x and y."""
    near = []
    for best, length in ((column, heat.shape[3]), (row, heat.shape[2])):
        reach = torch.minimum(best, length - 1 - best).clamp(max=round(3 * sigma))
        away = torch.arange(length, device=heat.device) - best[..., None]
        near.append((away, away.abs() <= reach[..., None]))
    (dx, in_x), (dy, in_y) = near
    mass = heat.clamp(min=0) * in_y[..., :, None] * in_x[..., None, :]
    total = mass.sum((2, 3)).clamp(min=torch.finfo(heat.dtype).tiny)
    return torch.stack([(mass.sum(2) * dx).sum(2) / total, (mass.sum(3) * dy).sum(2) / total], -1)
