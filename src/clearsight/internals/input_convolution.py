"""Gradients at the input of convolutions that have few input channels, as a product and a fold.

A first layer has 1 or 3 input channels.  The libraries that torch calls on a processor work out such a gradient as if
there were 8 or 16, which takes up to six times as long as the product of the weights with the gradient of the output,
whose columns `torch.nn.functional.fold` adds up (measured with oneDNN, torch 2.14).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.contents import settled_contents

FEW = 4  # input channels, up to which a fold is the faster way
COLUMNS = 2**19  # numbers that are folded at a time: as many as a cache holds


class _Convolution(torch.autograd.Function):
    """A convolution whose way back to its input is a product and a fold, and to its weights torch's own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]) -> Tensor:
        return nn.functional.conv2d(x, weight, bias, **geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, geometry = inputs
        trains = weight.requires_grad or (bias is not None and bias.requires_grad)
        ctx.save_for_backward(weight, x if trains else None)
        ctx.size, ctx.geometry, ctx.biases = x.shape[2:], geometry, None if bias is None else list(bias.shape)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        weight, x = ctx.saved_tensors
        wanted, *trains, _ = ctx.needs_input_grad
        at_input = gradient_at_input(g, weight, ctx.size, **ctx.geometry) if wanted else None
        if x is None:
            return at_input, None, None, None
        stride, padding, dilation = (list(ctx.geometry[k]) for k in ("stride", "padding", "dilation"))
        _, at_weight, at_bias = torch.ops.aten.convolution_backward(
            g, x, weight, ctx.biases, stride, padding, dilation, False, [0, 0], 1, [False, *trains]
        )
        return at_input, at_weight, at_bias, None


vars(_Convolution.forward)["__signature__"] = signature(_Convolution.forward)  # which `apply` asks for every time


def gradient_at_input(g: Tensor, weight: Tensor, size: torch.Size, **geometry: tuple[int, ...]) -> Tensor:
    """The gradient at the input (B, C, *size) of a convolution, from that at its output, g (B, K, h, w).

    weight (K, C, a, b); geometry: its stride, padding and dilation.

    >>> g, weight = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 4.0]]]])
    >>> gradient_at_input(g, weight, torch.Size((1, 3)), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
    tensor([[[[ 3., 10.,  8.]]]])
    """
    across = weight.flatten(1).T
    some = max(1, COLUMNS // max(1, across.shape[0] * g.shape[2:].numel()))
    if len(g) <= some:
        return _folded(across @ g.flatten(2), size, weight.shape[2:], geometry)
    return torch.cat(
        [_folded(across @ part.flatten(2), size, weight.shape[2:], geometry) for part in torch.split(g, some)]
    )


def _folded(columns: Tensor, size: torch.Size, window: torch.Size, geometry: dict[str, Any]) -> Tensor:
    """The columns (n, C a b, places) of n pictures, folded at once, as those of one with the channels of all."""
    if not len(columns):
        return nn.functional.fold(columns, size, window, **geometry)
    whole = nn.functional.fold(columns.reshape(1, -1, columns.shape[2]), size, window, **geometry)
    return whole.reshape(len(columns), -1, *size)


@contextmanager
def folded_back(net: nn.Module) -> Iterator[None]:
    """Inside, gradients at the inputs of the network's convolutions that have few input channels are folded.

    They are those of torch but for rounding.  The network's other layers, its outputs, and what runs on another device
    or in another type than float32 stay as they are.  Under autocast all of it does, whose types are mixed.
    """
    with ExitStack() as undo:
        for m in settled_contents(net).modules:
            if type(m) is nn.Conv2d and _fits(m) and "_conv_forward" not in vars(m):
                undo.callback(vars(m).pop, "_conv_forward", None)
                vars(m)["_conv_forward"] = partial(_run, m)
        yield


def is_folded(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether the gradient at the input x of a convolution is faster as a fold: few channels of a float32 picture."""
    usual = x.dim() == 4 and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return usual and _few(weight, groups) and not torch.is_autocast_enabled("cpu")


def _few(weight: Tensor, groups: int) -> bool:
    return groups == 1 and weight.shape[1] <= FEW


def _fits(m: nn.Conv2d) -> bool:
    few = m.in_channels <= FEW and _few(m.weight, m.groups)  # the former is faster to ask
    return few and m.padding_mode == "zeros" and not isinstance(m.padding, str)


def _run(m: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `m` gives for x; where its input has a gradient, on the way that is folded back."""
    if not x.requires_grad or not is_folded(x, weight, m.groups) or not torch.is_grad_enabled():
        plain: Tensor = nn.Conv2d._conv_forward(m, x, weight, bias)
        return plain
    geometry = {"stride": m.stride, "padding": m.padding, "dilation": m.dilation}
    out: Tensor = _Convolution.apply(x, weight, bias, geometry)
    return out
