"""Scores from an engine that gives no gradients: whoever asks for one is told so, and what to do."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from clearsight.errors import NoGradient

ADVICE = (
    "use an explainer that only asks for scores, such as occlusion or rise (of attacks square or hop-skip-jump), or "
    "give the network that it was exported from"
)


def blind(z: Tensor, scores: Tensor, why: str) -> Tensor:
    """The scores (B, K) that an engine gave for z (B, C, *S); a gradient asked of them raises NoGradient.

    why: what the engine and its file are, and why no gradient flows there.

    >>> z = torch.zeros(1, 2, requires_grad=True)
    >>> blind(z, torch.ones(1, 2), "an engine gives scores only").sum().backward()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    clearsight.errors.NoGradient: no gradient flows back to the pixels: an engine gives scores only; use an explainer...
    """
    if not (z.requires_grad and torch.is_grad_enabled()):
        return scores
    return cast(Tensor, _Blind.apply(z, scores, why))


class _Blind(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, scores: Tensor, why: str) -> Tensor:
        ctx.why = why
        return scores.clone()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NoGradient("no gradient flows back to the pixels", ctx.why, ADVICE)
