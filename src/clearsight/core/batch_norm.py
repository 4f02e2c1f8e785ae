"""BatchNorm with fixed statistics, whose gradient at a large input is a scale for each channel.

PyTorch's own way back (2.14.1, on a processor) adds up, for weights that may learn, what nobody asks for here: of maps
that no cache holds it reads everything once more, and takes about twice as long.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LARGE = 2**20  # numbers of an input, from which on a function in Python is the faster way

Norm = Callable[..., Tensor]


class ScaledBack(torch.autograd.Function):
    """The norm itself forwards; backwards the scale that it is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(norm: Norm, x: Tensor, mean: Tensor, var: Tensor, weight: Any, bias: Any, eps: float) -> Tensor:
        return norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, _, var, weight, _, eps = inputs
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(scale if weight is None else scale * weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        return None, g * scale.view(-1, *[1] * (g.dim() - 2)), None, None, None, None, None


# torch binds the arguments by the signature, which Python would work out anew at every call
vars(ScaledBack.forward)["__signature__"] = inspect.signature(ScaledBack.forward)


def scaled_back(norm: Norm) -> Norm:
    """The function ``torch.nn.functional.batch_norm``, with that way back where only a large input has a gradient."""

    def batch_norm(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        fixed = (running_mean, running_var, weight, bias)
        if not training and running_var is not None and input.numel() >= LARGE and _alone_has_a_gradient(input, fixed):
            out: Tensor = ScaledBack.apply(norm, input, *fixed, eps)
            return out
        return norm(input, *fixed, training, momentum, eps)

    return batch_norm


def _alone_has_a_gradient(x: Tensor, fixed: tuple[Tensor | None, ...]) -> bool:
    if not (torch.is_grad_enabled() and x.requires_grad and x.is_cpu and x.dtype == torch.float32):
        return False
    return all(t is None or (t.dtype == torch.float32 and not t.requires_grad) for t in fixed)
