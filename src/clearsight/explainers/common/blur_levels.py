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
    shares = ((i, (1 - (at - i).abs_()).clamp_min_(0)) for i in range(levels))
    return [(i, share) for i, share in shares if bool(share.any())]


def mix(levels: Tensor, shares: Shares) -> Tensor:
    """The mean of levels (B or 1, L, C, *S) by their shares: (B, C, *S)."""
    (first, share), *others = shares
    total = levels[:, first] * share
    for i, share in others:
        total.addcmul_(levels[:, i], share)
    return total


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, levels: Tensor, blur: Tensor) -> Tensor:
        ctx.save_for_backward(levels, blur)
        return mix(levels, shares_of(levels.shape[1], blur))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        levels, blur = ctx.saved_tensors
        last = levels.shape[1] - 1
        g = g.contiguous()
        along = torch.stack([(g * level).sum(1) for level in levels.unbind(1)], 1)
        low = (blur * last).long().clamp_(0, last - 1)
        slope = along.diff(dim=1).gather(1, low[:, None])[:, 0]
        return None, slope * last
