"""Operations of a recorded network in a form whose second derivatives exist and cost little.

A softplus stands for a ReLU, whose second derivative is zero (Dombrowski et al. 2019, arXiv:1906.07983, section 3).
A convolution by constant weights is linear, so its second derivative is the convolution itself; PyTorch's own also
computes the gradient of the weights, group by group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from clearsight.core.norms import per_picture
from clearsight.internals.graph import Graph, Rule, aten
from clearsight.internals.relu import RELUS, open_range


def second_order_rules(beta: float) -> dict[str, Rule]:
    """Rules for `Graph` by which every ReLU is a softplus, and convolutions are differentiated twice at little cost.

    beta: sharpness of the softplus, in units of one over each layer's mean magnitude.
    """

    def relu(graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        open_between = open_range(node)
        if open_between is None:
            run: Any = node.target
            return run(*args, **kwargs)
        a: Tensor = args[0]
        axes = tuple(range(1, a.dim()))
        usual = torch.linalg.vector_norm(a.detach(), 1, axes).div_(a[0].numel()).clamp_min_(torch.finfo(a.dtype).tiny)
        once = _is_before_the_map(graph, node)
        return (_SoftplusOnce if once else _Softplus).apply(a, per_picture(beta / usual, a), open_between[1])

    return {**dict.fromkeys(RELUS, relu), "convolution": _convolution}


def _is_before_the_map(graph: Graph, node: fx.Node) -> bool:
    """Whether the marked layer runs later, so that what is differentiated there does not come from this operation."""
    return graph.marked is not None and node < graph.marked


def _convolution(graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    own_weights = not any(isinstance(a, fx.Node) and a not in graph.constants for a in node.args[1:3])
    if not own_weights or _is_before_the_map(graph, node):
        return aten.convolution.default(*args, **kwargs)
    x, weight, bias, *geometry = args

    def forward(x: Tensor, bias: Tensor | None = None) -> Tensor:
        out: Tensor = aten.convolution.default(x, weight, bias, *geometry)
        return out

    def back(g: Tensor, x: Tensor) -> Tensor:
        at_input: Tensor = aten.convolution_backward.default(g, x, weight, None, *geometry, (True, False, False))[0]
        return at_input

    return _Affine.apply(x, bias, forward, back)


class _Affine(Function):
    """A linear operation and a bias; back gives the gradient at its input for the one at its result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, forward: Callable[..., Tensor], back: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.forward, ctx.back = forward, back
        return forward(x, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        again = torch.is_grad_enabled()  # else nobody differentiates this once more
        at_x = _Transposed.apply(g, x.detach(), ctx.forward, ctx.back) if again else ctx.back(g, x)
        return at_x, None, None, None


class _Transposed(Function):
    """The way back of a linear operation; its own way back is the operation."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, forward: Callable[..., Tensor], back: Any) -> Any:
        ctx.forward = forward
        return back(g, x)

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> Any:
        return ctx.forward(gg), None, None, None


class _Softplus(Function):
    """log(1 + exp(b a)) / b, less the same of a - high where high is finite: a smooth clamp of a to 0..high."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, high: float) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.high = high
        return _softplus(a, b, high, *_sigmoids(a, b, high))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        a, b = ctx.saved_tensors
        if torch.is_grad_enabled():  # else nobody differentiates this once more
            return _SoftplusSlope.apply(g, a, b, ctx.high), None, None
        return _slope(*_sigmoids(a, b, ctx.high)).mul_(g), None, None


class _SoftplusOnce(Function):
    """The same, to be differentiated once: its slope is found on the way forward."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, high: float) -> Tensor:
        low, upper = _sigmoids(a, b, high)
        out = _softplus(a, b, high, low, upper)
        ctx.save_for_backward(_slope(low, upper))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return g * slope, None, None


def _sigmoids(a: Tensor, b: Tensor, high: float) -> tuple[Tensor, Tensor | None]:
    """sigmoid(b a), and sigmoid(b (a - high)) where high is finite."""
    scaled = a * b
    upper = (scaled - b * high).sigmoid_() if high < torch.inf else None
    return scaled.sigmoid_(), upper


def _softplus(a: Tensor, b: Tensor, high: float, low: Tensor, upper: Tensor | None) -> Tensor:
    """The softplus of a, from the two sigmoids p and q: a clamped to 0..high, less log(p' / q') / b.

    p' is the larger one of p and 1 - p, which is sigmoid(|b a|), and q' likewise: one logarithm, of nothing large.
    """
    rest = (1 - low).clamp_min_(low)
    if upper is not None:
        rest /= (1 - upper).clamp_min_(upper)
    return a.clamp(0, high).sub_(rest.log_().div_(b))


def _slope(low: Tensor, upper: Tensor | None) -> Tensor:
    """The slope of the softplus, in the memory of low."""
    return low if upper is None else low.sub_(upper)


class _SoftplusSlope(Function):
    """g times the slope of that at a: sigmoid(b a), less sigmoid(b (a - high))."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, a: Tensor, b: Tensor, high: float) -> Tensor:
        low, upper = _sigmoids(a, b, high)
        slope, both = (low, low) if upper is None else (low - upper, low.add_(upper))
        ctx.save_for_backward(g, b, slope, both)
        return g * slope

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> Any:
        g, b, slope, both = ctx.saved_tensors
        at_g = gg * slope
        # p (1 - p) - q (1 - q) = (p - q) (1 - p - q) for the two sigmoids p and q
        return at_g, (1 - both).mul_(at_g).mul_(g).mul_(b), None, None
