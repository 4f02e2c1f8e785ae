"""DeepLIFT's way back: each operation hands on change over change, between the picture and a baseline.

Every step here takes what it works on and what that was for the baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from clearsight.graph import Graph, Rule, Values
from clearsight.targets import Target

STEPS = 64  # points on the line between the logits of a picture and of its baseline


def slope(target: Target, here: Tensor, there: Tensor) -> Tensor:
    """The target's mean gradient (B, K) on the straight line between two rows of logits, by the midpoint rule."""
    total = torch.zeros_like(here)
    for k in range(STEPS):
        at = (there + (k + 0.5) / STEPS * (here - there)).requires_grad_()
        with torch.enable_grad():
            score = target(at).sum()
        total += torch.autograd.grad(score, at)[0]
    return total / STEPS


class _Curve(torch.autograd.Function):
    """A function of each number by itself: change out over change in, or its own slope where nothing changes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, was: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x, was)
        ctx.fn = fn
        return fn(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, was = ctx.saved_tensors
        with torch.enable_grad():
            free = x.detach().requires_grad_()
            out = ctx.fn(free)
        (own,) = torch.autograd.grad(out, free, torch.ones_like(out))
        change = x - was
        still = change.abs() < 1e-6 * (1 + x.abs())
        rise = (out.detach() - ctx.fn(was)) / torch.where(still, 1.0, change)
        return grads[0] * torch.where(still, own, rise), None, None


class _Peaks(torch.autograd.Function):
    """Max-pooling: what it gains goes to the place that wins now, what it loses to the one that won before."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, was: Tensor, fn: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        out, index = fn(x)
        ctx.save_for_backward(x, was, out, index, *fn(was))
        ctx.mark_non_differentiable(index)
        return out, index

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        places = ctx.saved_tensors[0].dim() - 2
        x, was, new, at_new, old, at_old = (t.flatten(-places) for t in ctx.saved_tensors)
        g = grads[0].flatten(-places)
        change = x - was
        total = torch.zeros_like(x)
        top = torch.maximum(new, old)
        for gain, at in ((top - old, at_new), (new - top, at_old)):
            by = change.gather(-1, at)
            total.scatter_add_(-1, at, g * torch.where(gain == 0, 0.0, gain / torch.where(by == 0, 1.0, by)))
        same = (new == old) & (at_new == at_old) & (change.gather(-1, at_new) == 0)
        total.scatter_add_(-1, at_new, g * same)
        return total.view_as(ctx.saved_tensors[0]), None, None


def curve(x: Tensor, was: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """fn of each number of x by itself."""
    out: Tensor = _Curve.apply(x, was, fn)
    return out


def product(a: Tensor, was_a: Tensor, b: Tensor, was_b: Tensor, fn: Callable[..., Tensor] = torch.mul) -> Tensor:
    """A product by any bilinear operation: of what changes in common, half goes to each factor.

    The slope towards a factor is the other one's mean, so values are put right apart from the graph.
    """
    out = (fn(a, (b + was_b).detach() / 2), fn((a + was_a).detach() / 2, b))
    with torch.no_grad():
        right = fn(a, b) - out[0] - out[1]
    return out[0] + out[1] + right


def rules(before: Values, pictures: int) -> dict[str, Rule]:
    """How to run each operation, given all values of the baseline, as many times as there are pictures."""

    def was(graph: Graph, node: fx.Node) -> tuple[Any, ...]:
        return graph.arguments(node, before, pictures)[0]

    def each(graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        if node.args[0] not in graph.moving:
            return run(*args, **kwargs)
        return curve(args[0], was(graph, node)[0], lambda v: run(v, *args[1:], **kwargs))

    def bilinear(graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        if not all(a in graph.moving for a in node.args[:2]):
            return run(*args, **kwargs)
        a, b = was(graph, node)[:2]
        return product(args[0], a, args[1], b, run)

    def quotient(graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        if node.args[1] not in graph.moving:
            return run(*args, **kwargs)
        a, b = was(graph, node)[:2]
        inverse = curve(args[1], b, torch.reciprocal)
        moves = node.args[0] in graph.moving
        return product(args[0], a, inverse, b.reciprocal()) if moves else args[0] * inverse

    def pooled(graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        return _Peaks.apply(args[0], was(graph, node)[0], lambda v: run(v, *args[1:], **kwargs))

    def layer_norm(graph: Graph, node: fx.Node, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        x, shape, weight, bias, eps = args
        out = _standard(x, was(graph, node)[0], tuple(range(-len(shape), 0)), eps)
        out = out if weight is None else out * weight
        return (out if bias is None else out + bias,)

    def group_norm(graph: Graph, node: fx.Node, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        x, weight, bias, n, channels, places, groups, eps = args
        rows = (n, groups, channels // groups * places)
        out = _standard(x.reshape(rows), was(graph, node)[0].reshape(rows), (2,), eps).view_as(x)
        column = (-1,) + (1,) * (x.dim() - 2)
        out = out if weight is None else out * weight.view(column)
        return (out if bias is None else out + bias.view(column),)

    def softmax(graph: Graph, node: fx.Node, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        e, was_e, _ = _exponentials(args[0], was(graph, node)[0], args[1])
        total, was_total = (t.sum(args[1], keepdim=True) for t in (e, was_e))
        return product(e, was_e, curve(total, was_total, torch.reciprocal), was_total.reciprocal())

    def log_softmax(graph: Graph, node: fx.Node, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
        e, was_e, top = _exponentials(args[0], was(graph, node)[0], args[1])
        total, was_total = (t.sum(args[1], keepdim=True) for t in (e, was_e))
        return args[0] - top - curve(total, was_total, torch.log)

    return {
        **dict.fromkeys(_CURVES, each),
        **dict.fromkeys(("mul", "bmm", "mm"), bilinear),
        **dict.fromkeys(_PEAKS, pooled),
        "div": quotient,
        "native_layer_norm": layer_norm,
        "native_group_norm": group_norm,
        "_softmax": softmax,
        "_safe_softmax": softmax,
        "_log_softmax": log_softmax,
    }


def _standard(x: Tensor, was: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred, was_centred = (t - t.mean(axes, keepdim=True) for t in (x, was))
    variance = product(centred, was_centred, centred, was_centred).mean(axes, keepdim=True)
    was_variance = was_centred.square().mean(axes, keepdim=True)
    inverse = curve(variance, was_variance, lambda v: (v + eps).rsqrt())
    return product(centred, was_centred, inverse, (was_variance + eps).rsqrt())


def _exponentials(x: Tensor, was: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """exp(x - top) for both, and top, which is the same for a picture and its baseline."""
    top = torch.maximum(x, was).detach().amax(dim, keepdim=True)
    return curve(x - top, was - top, torch.exp), (was - top).exp(), top


_PEAKS = ("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d")
_CURVES = (
    "relu", "hardtanh", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "softplus", "tanh", "sigmoid",
    "hardsigmoid", "clamp", "clamp_min", "threshold", "exp", "log", "sqrt", "rsqrt", "reciprocal", "abs", "erf",
    "sin", "cos", "square", "pow",
)  # fmt: skip
