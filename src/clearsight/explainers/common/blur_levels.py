"""A picture that is blurred more here and less there, mixed from copies that are blurred more and more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Shares = list[tuple[int, Tensor]]


def blur_between(levels: Tensor, blur: Tensor) -> Tensor:
    """The picture blurred more or less: blur (B, *S) from 0 to 1 runs through the levels (B, L, C, *S) -> (B, C, *S).

    Differentiable in blur.  Just at a level the slope is that towards the next one, and at the last that from the one
    before.
    """
    mixed: Tensor = _Mixed.apply(levels, blur)
    return mixed


def shares_of(levels: int, blur: Tensor) -> Shares:
    """Which of so many levels blur (B, *S) takes anything of, with the share (B, 1, *S) of each."""
    at = blur[:, None] * (levels - 1)
    shares = ((i, _share(at - i)) for i in range(levels))
    return [(i, share) for i, share in shares if bool(share.any())]


def mix(levels: Tensor, shares: Shares) -> Tensor:
    """The mean of levels (B or 1, L, C, *S) by their shares: (B, C, *S)."""
    (first, share), *others = shares
    total = levels[:, first] * share
    for i, share in others:
        total.addcmul_(levels[:, i], share)
    return total


def _share(far: Tensor) -> Tensor:
    """Of a level, so many levels away; far is written over."""
    return (1 - far.abs_()).clamp_min_(0)


class _Mixed(torch.autograd.Function):
    """A pixel takes of two levels, the one below its blur and the one above: only these are read."""

    @staticmethod
    def forward(ctx: Any, levels: Tensor, blur: Tensor) -> Tensor:
        last = levels.shape[1] - 1
        at = blur * last
        few = levels.numel() < 2**31  # places then fit into 32 bits, which are read faster
        low = at.to(torch.int32 if few else torch.int64).clamp_(0, last - 1)
        below, above = _two_levels(levels, low)
        ctx.save_for_backward(below, above)
        ctx.last = last
        far = (at - low)[:, None]
        return (below * _share(far.clone())).addcmul_(above, _share(far - 1))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        below, above = ctx.saved_tensors
        g = g.contiguous()
        return None, ((g * above).sum(1) - (g * below).sum(1)) * ctx.last


def _two_levels(levels: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Of levels (B, L, C, *S) at each pixel the level low (B, *S), and the next one: (B, C, *S) each.

    By places in one long row, of which index_select takes 200,000 in 0.09 ms, where gather takes 0.23.
    """
    shape, size = levels[:, 0].shape, levels[0, 0].numel()
    places = torch.arange(len(low) * size, dtype=low.dtype, device=low.device).view(shape)
    pictures = torch.arange(len(low), dtype=low.dtype, device=low.device).view(-1, *[1] * (low.dim() - 1))
    skipped = (low + pictures * (levels.shape[1] - 1)) * size  # numbers of other levels before this one
    places = places.add_(skipped[:, None]).flatten()
    row = levels.reshape(-1)
    below, above = row.index_select(0, places), row[size:].index_select(0, places)
    return below.view(shape), above.view(shape)
