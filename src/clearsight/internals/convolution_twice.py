"""Convolutions whose gradient at the input is differentiated once more, at the cost of two convolutions.

PyTorch works out that second gradient of the weights as a convolution by filters of the size of the picture, and of
grouped convolutions group by group.  It is the ordinary gradient of the weights, with the second gradient in the place
of the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_Geometry = tuple[Any, ...]  # stride, padding, dilation, transposed, output padding, groups
_aten = torch.ops.aten
_FEW_STEPS = 16  # of autograd, as normalisation takes some


@contextmanager
def twice_differentiable(net: nn.Module) -> Iterator[None]:
    """Inside, passes of the network are cheap to differentiate twice.

    Their results and gradients are those of torch but for rounding.  What differentiates such a pass with create_graph
    gets the gradient at the input of a convolution, as an explanation needs it, and none of its weights; what
    differentiates it without, as training does, gets none at the pixels.
    """
    with ExitStack() as undo:
        for m in net.modules():
            if type(m) in (nn.Conv1d, nn.Conv2d) and _fits(m) and "_conv_forward" not in vars(m):
                undo.callback(vars(m).pop, "_conv_forward", None)
                vars(m)["_conv_forward"] = partial(_run, m)
        yield


def _fits(m: Any) -> bool:
    return m.padding_mode == "zeros" and not isinstance(m.padding, str)


def _run(m: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    usual = x.dim() == weight.dim() and x.dtype == weight.dtype and not torch.is_autocast_enabled(x.device.type)
    if not (usual and x.requires_grad and torch.is_grad_enabled()):
        plain: Tensor = type(m)._conv_forward(m, x, weight, bias)
        return plain
    geometry = (m.stride, m.padding, m.dilation, False, (0,) * (x.dim() - 2), m.groups)
    out: Tensor = _Convolution.apply(x, weight, bias, geometry, not _learns_before(x))
    return out


def _learns_before(x: Tensor) -> bool:
    """Whether x comes of parameters, or of so much that it is not looked through."""
    nodes, seen = [x.grad_fn], 0
    while nodes:
        node, seen = nodes.pop(), seen + 1
        if seen > _FEW_STEPS or isinstance(getattr(node, "variable", None), nn.Parameter):
            return True
        nodes += [before for before, _ in node.next_functions if before is not None] if node is not None else []
    return False


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry, pixels: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pixels, ctx.geometry, ctx.bias = pixels, geometry, None if bias is None else list(bias.shape)
        out: Tensor = _aten.convolution.default(x, weight, bias, *geometry)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # its own gradient is wanted: it is a part of an explanation
            return _AtInput.apply(g, x.detach(), weight, ctx.geometry), None, None, None, None
        wanted = (ctx.needs_input_grad[0] and not ctx.pixels, ctx.needs_input_grad[1], ctx.needs_input_grad[2])
        found = _aten.convolution_backward.default(g, x, weight, ctx.bias, *ctx.geometry, wanted)
        return (*found, None, None)


class _AtInput(torch.autograd.Function):
    """The gradient at the input of a convolution, differentiable in the gradient at its output and in the weights."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.geometry = geometry
        found: Tensor = _aten.convolution_backward.default(g, x, weight, None, *geometry, (True, False, False))[0]
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        g, weight = ctx.saved_tensors
        at_g = _aten.convolution.default(v, weight, None, *ctx.geometry)
        wanted = (False, ctx.needs_input_grad[2], False)
        at_weight = _aten.convolution_backward.default(g, v, weight, None, *ctx.geometry, wanted)[1]
        return at_g, None, at_weight, None
