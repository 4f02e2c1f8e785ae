"""Targets that are one output of the network as it is: their slope is known without a way back."""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor

from clearsight.core.targets import ClassScore, Target

_AS_THEY_ARE = ("logit", "value")  # scores whose slope is 1 at their class, and 0 at all others


def is_one_output(target: Target) -> TypeGuard[ClassScore]:
    """Whether a target is one of the outputs."""
    if not isinstance(target, ClassScore) or type(target).__call__ is not ClassScore.__call__:
        return False
    return target.of in _AS_THEY_ARE


def one_output(target: Target, outputs: Tensor) -> Tensor | None:
    """Which of the outputs (B, K) a target is, (B,); None for one that is anything else.

    Refused: classes that the outputs do not have.
    """
    if not is_one_output(target):
        return None
    target(outputs)  # which refuses classes that there are not
    return target.index.to(outputs.device).expand(len(outputs))


def slope_of_one(target: Target, outputs: Tensor) -> Tensor | None:
    """d target / d outputs (B, K), of a target that is one of the outputs; None for one that is anything else."""
    index = one_output(target, outputs)
    if index is None:
        return None
    return outputs.new_zeros(outputs.shape).scatter_(1, index[:, None], 1.0)
