"""Convolutions, BatchNorm, ReLUs and padding whose gradient at the input is differentiated once more, at little cost.

PyTorch works out the second gradient of a convolution's weights as a convolution by filters of the size of the picture,
and of grouped convolutions group by group.  It is the ordinary gradient of the weights, with the second gradient in the
place of the input.  That of BatchNorm takes PyTorch twenty passes over what it is given; it is a sum of three terms.
That of a ReLU at its input is zero, which PyTorch writes out and adds.  That of padding is a part of what comes back,
which PyTorch copies.  Both gradients of wide depthwise filters are taken in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from clearsight.internals.depthwise_weights import depthwise_weights, is_wide_depthwise
from clearsight.internals.input_convolution import gradient_at_input, is_folded

_Geometry = tuple[Any, ...]  # stride, padding, dilation, transposed, output padding, groups
_aten = torch.ops.aten
_back = _aten.native_batch_norm_backward.default
_FEW_STEPS = 16  # of autograd, as normalisation takes some


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Inside, passes of networks are cheap to differentiate twice.

    Their results and gradients are those of torch but for rounding.  What differentiates such a pass with create_graph
    gets the gradient at the input of such a layer, as an explanation needs it, and none of its weights; what
    differentiates it without, as training does, gets none at the pixels.
    """
    with _Cheap():
        yield


_as_torch: ContextVar[bool] = ContextVar("as_torch", default=False)


@contextmanager
def as_torch_does() -> Iterator[None]:
    """Inside, passes are those of torch all the same, for who looks at what autograd writes down of them."""
    token = _as_torch.set(True)
    try:
        yield
    finally:
        _as_torch.reset(token)


class _Cheap(TorchFunctionMode):
    """Functions that have a form of their own here are run in it, wherever in the network they are called."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = None if _as_torch.get() else _OWN.get(func)
        found = None if own is None else own(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is None else found


def _serves(x: Tensor, weight: Tensor | None) -> bool:
    return weight is not None and x.dtype == weight.dtype and _is_differentiated(x)


def _is_differentiated(x: Tensor) -> bool:
    fine = x.dtype in (torch.float32, torch.float64)
    return fine and x.requires_grad and torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)


def _convolved(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    axes = weight.dim() - 2
    if isinstance(padding, str) or input.dim() != weight.dim() or not _serves(input, weight):
        return None
    sides = (_of_axes(v, axes) for v in (stride, padding, dilation))
    geometry = (*sides, False, (0,) * axes, groups)
    out: Tensor = _Convolution.apply(input, weight, bias, geometry, not _learns_before(input))
    return out


def _of_axes(value: Any, axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes // len(value))


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
        return *_convolved_back(g, x, weight, ctx.bias, ctx.geometry, wanted), None, None


def back_through_convolution(g: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    """What comes back to the input x (B, C, *s) of a convolution; at little cost differentiable in g and the weights.

    geometry: aten's arguments behind the bias; not of a transposed one.
    """
    found: Tensor = _AtInput.apply(g, x.detach(), weight, geometry)
    return found


class _AtInput(torch.autograd.Function):
    """The gradient at the input of a convolution, differentiable in the gradient at its output and in the weights."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.geometry = geometry
        if is_folded(x, weight, geometry[5]):
            named = dict(zip(("stride", "padding", "dilation"), geometry[:3], strict=True))
            return gradient_at_input(g, weight, x.shape[2:], **named)
        found: Tensor = _aten.convolution_backward.default(g, x, weight, None, *geometry, (True, False, False))[0]
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        g, weight = ctx.saved_tensors
        at_g = _aten.convolution.default(v, weight, None, *ctx.geometry)
        wanted = (False, ctx.needs_input_grad[2], False)
        at_weight = _convolved_back(g, v, weight, None, ctx.geometry, wanted)[1]
        return at_g, None, at_weight, None


def _convolved_back(g: Tensor, x: Tensor, weight: Tensor, bias: Any, geometry: _Geometry, wanted: Any) -> Any:
    """What is wanted of the gradients at the input, at the weights and at the bias."""
    if not wanted[1] or not is_wide_depthwise(x, weight, geometry[5]):
        return _aten.convolution_backward.default(g, x, weight, bias, *geometry, wanted)
    at_input = None
    if wanted[0]:
        at_input = _aten.convolution_backward.default(g, x, weight, None, *geometry, (True, False, False))[0]
    return at_input, depthwise_weights(g, x, weight, *geometry[:3]), g.sum((0, 2, 3)) if wanted[2] else None


def _standardised(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if bias is None or not _serves(input, weight):
        return None
    if not training:
        return None if running_mean is None else _Scaled.apply(input, weight, bias, running_mean, running_var, eps)
    out: Tensor = _Standardised.apply(input, weight, bias, running_mean, running_var, momentum, eps)[0]
    return out


class _Standardised(torch.autograd.Function):
    """BatchNorm by the batch's own means and variances, and a mark.

    What is differentiated twice adds to the gradient at the input.  That part is not written out and added, but put
    into the gradient that is there: it waits in ``later`` until every way back from the mark has been gone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Any, variance: Any, share: float, eps: float
    ) -> tuple[Tensor, Tensor]:
        out, own_mean, scale = _aten.native_batch_norm.default(x, weight, bias, mean, variance, True, share, eps)
        mark = scale.new_zeros(())
        ctx.save_for_backward(x, weight, own_mean, scale, mark)
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.later = eps, []
        return out, mark

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: None) -> Any:
        x, weight, mean, scale, mark = ctx.saved_tensors
        g = torch.zeros_like(x) if g is None else _like(x, g)
        if torch.is_grad_enabled():  # its own gradient is wanted: it is a part of an explanation
            at_input = _StandardisedAtInput.apply(g, mark, x.detach(), weight, mean, scale, ctx.eps, ctx.later)
            return at_input, *[None] * 6
        if not ctx.later:
            return *_standardised_back(g, x, weight, mean, scale, ctx.eps), *[None] * 4
        found = _standardised_back_with(ctx.later, g, x, weight, mean, scale, ctx.eps)
        ctx.later.clear()
        return *found, *[None] * 4


class _StandardisedAtInput(torch.autograd.Function):
    """The gradient at the input of BatchNorm, differentiable in the gradient at its output, its input and its weights.

    With h the standardised input, s one over the deviation, w the weights and n numbers in a channel, it is
    w s (g - mean(g) - h mean(g h)).  The gradient at the input goes by way of the mark.
    """

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        mark: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        scale: Tensor,
        eps: float,
        later: Any,
    ) -> Tensor:
        at_input, along, total = _standardised_back(g, x, weight, mean, scale, eps)
        ctx.save_for_backward(g, x, weight, mean, scale, along, total)
        ctx.eps, ctx.later = eps, later
        return at_input

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        g, x, weight, mean, scale, g_along, g_total = ctx.saved_tensors
        v = _like(x, v)
        at_g, v_along, v_total = _standardised_back(v, x, weight, mean, scale, ctx.eps)
        n, g_steep = x.numel() / x.shape[1], g_along * scale
        apart = _back(v, g, None, None, None, g_total / n, scale, True, ctx.eps, (False, True, False))[1]
        at_weight = apart.addcmul_(v_along, g_steep, value=-1 / n)  # before, s times the sum of v (g - mean(g))
        if ctx.needs_input_grad[1]:
            size = (weight * scale).div_(-n)
            of_v, of_g = size * g_steep, (size * scale).mul_(v_along)
            of_h = (size * at_weight).addcmul_(of_g, g_along, value=-2 / n)  # of h, the second by the deviation
            rest = (of_v * v_total).addcmul_(of_g, g_total).div_(-n)
            ctx.later.append((of_h, rest, (v, of_v), (g, of_g)))
        return at_g, None, None, at_weight, *[None] * 4


def _standardised_back(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients at the input, at the weights (the sum of g h) and at the bias (the sum of g)."""
    found: tuple[Tensor, Tensor, Tensor]
    found = _back(g, x, weight, None, None, mean, scale, True, eps, (True, True, True))
    return found


def _standardised_back_with(
    later: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, with what waits in ``later`` at the input: a line in x and multiples of g and of what is kept there."""
    _, along, total = _back(g, x, weight, None, None, mean, scale, True, eps, (False, True, True))
    n, size = x.numel() / x.shape[1], weight * scale
    slope, level, parts = size * along / -n, size * total / -n, [(g, size)]
    for of_h, rest, *others in later:
        slope, level, parts = slope + of_h, level + rest, parts + others
    one, shape = torch.ones_like(scale), (1, -1, *[1] * (x.dim() - 2))
    at_x: Tensor = _aten.native_batch_norm.default(x, slope.mul_(scale), level, mean, one, False, 0.0, 0.0)[0]
    for other, factor in parts:
        at_x.addcmul_(other, factor.view(shape))
    return at_x, along, total


def _like(x: Tensor, g: Tensor) -> Tensor:
    """g in the memory order of x, without which BatchNorm takes torch several times as long."""
    return g if g.stride() == x.stride() else torch.empty_like(x).copy_(g)


class _Scaled(torch.autograd.Function):
    """BatchNorm by means and variances that are fixed: x times one number of its channel, and another added."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        out: Tensor = _aten.native_batch_norm.default(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # its own gradient is wanted: it is a part of an explanation
            return _ScaledAtInput.apply(g, weight, variance, ctx.eps), *[None] * 5
        return *_scaled_back(g, x, weight, mean, variance, ctx.eps, ctx.needs_input_grad[:3]), None, None, None


class _ScaledAtInput(torch.autograd.Function):
    """The gradient at the input of fixed BatchNorm, differentiable in the gradient at its output and in the weights.

    It is w s g, with w the weights and s one over the deviation, wherever the input lies.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, variance: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(g, weight, variance)
        ctx.eps = eps
        return g * (weight * (variance + eps).rsqrt()).view(1, -1, *[1] * (g.dim() - 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        g, weight, variance = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False)
        nothing = torch.zeros_like(variance)  # s times the sum of v g is what BatchNorm of mean 0 gives at its weights
        at_g, at_weight, _ = _scaled_back(v, g, weight, nothing, variance, ctx.eps, wanted)
        return at_g, at_weight, None, None


def _scaled_back(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, eps: float, wanted: Any) -> Any:
    """What is wanted of the gradients at the input, at the weights and at the bias."""
    return _aten.native_batch_norm_backward.default(g, x, weight, mean, variance, None, None, False, eps, wanted)


def _rectified(input: Tensor, inplace: bool = False) -> Tensor | None:
    return _clamped(input, 0.0, torch.inf, inplace)


def _rectified_to_6(input: Tensor, inplace: bool = False) -> Tensor | None:
    return _clamped(input, 0.0, 6.0, inplace)


def _clamped(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor | None:
    if not _is_differentiated(input):
        return None
    out: Tensor = _Clamped.apply(input, float(min_val), float(max_val), inplace)
    return out


class _Clamped(torch.autograd.Function):
    """Numbers held between two others, as torch's own functions do it; what is kept is the result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, inplace: bool) -> Tensor:
        whole = low == 0 and high == torch.inf
        if inplace:
            ctx.mark_dirty(x)
            out = x.relu_() if whole else _aten.hardtanh_.default(x, low, high)
        else:
            out = x.relu() if whole else _aten.hardtanh.default(x, low, high)
        ctx.save_for_backward(out)
        ctx.ends = (low, high)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (out,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # its own gradient is wanted: it is a part of an explanation
            return _ClampedAtInput.apply(g, out.detach(), ctx.ends), None, None, None
        return _clamped_back(g, out, *ctx.ends), None, None, None


class _ClampedAtInput(torch.autograd.Function):
    """The gradient at the input of such a function, differentiable in the gradient at its output."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, out: Tensor, ends: tuple[float, float]) -> Tensor:
        ctx.save_for_backward(out)
        ctx.ends = ends
        return _clamped_back(g, out, *ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> Any:
        (out,) = ctx.saved_tensors
        return _clamped_back(v, out, *ctx.ends), None, None


def _clamped_back(g: Tensor, out: Tensor, low: float, high: float) -> Tensor:
    """g where the result lies between the two ends, which is where the input does; else 0.  In the result's order."""
    found = torch.empty_like(out)
    if low == 0 and high == torch.inf:
        _aten.threshold_backward.grad_input(g, out, 0.0, grad_input=found)
    else:
        _aten.hardtanh_backward.grad_input(g, out, low, high, grad_input=found)
    return found


def _padded(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor | None:
    if mode != "constant" or min(pad, default=-1) < 0 or not _is_differentiated(input):
        return None
    out: Tensor = _Padded.apply(input, tuple(pad), value or 0.0)
    return out


class _Padded(torch.autograd.Function):
    """Borders of one value around x; its gradient is a part of that which comes, which torch would copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sides: tuple[int, ...], value: float) -> Tensor:
        ctx.sides = sides
        out: Tensor = _aten.constant_pad_nd.default(x, sides, value)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _Cropped.apply(g, ctx.sides), None, None


class _Cropped(torch.autograd.Function):
    """What lies inside the borders: a view."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, sides: tuple[int, ...]) -> Tensor:
        ctx.sides = sides
        for axis, before, after in _borders(g, sides):
            g = g.narrow(axis, before, g.shape[axis] - before - after)
        return g

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return _Padded.apply(v, ctx.sides, 0.0), None


def _borders(x: Tensor, sides: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Of each axis that has borders, the last first: the axis, how many before it and how many after."""
    return [(x.dim() - 1 - i, sides[2 * i], sides[2 * i + 1]) for i in range(len(sides) // 2)]


_OWN: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolved), nn.functional.batch_norm: _standardised,
    **dict.fromkeys((nn.functional.relu, torch.relu, torch.Tensor.relu), _rectified),
    nn.functional.relu6: _rectified_to_6, nn.functional.hardtanh: _clamped, nn.functional.pad: _padded,
}  # fmt: skip
