"""DeepLIFT's way back: each operation hands on change over change, between the picture and a baseline.

Every step here takes what it works on and what that was for the baseline.  It gives the operation's own values, with a
slope towards each thing it works on: slope times change, summed over all of these, is the change of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearsight.core.targets import Target
from clearsight.explainers.common.one_output import slope_of_one
from clearsight.internals.vjp import vjp

STEPS = 1024  # points on the line between the logits of a picture and of its baseline
AT_ONCE = 64  # of them
ELEMENTS = 2**20  # numbers that go through the target at once
NOTHING = 1e-35  # smaller than the last digit of any difference
IN_CACHE = 2**18  # numbers on which several steps are taken together
SPREAD = 16  # points that tell whether the slope is the same all along


def slope(target: Target, logits: Tensor, baseline_logits: Tensor) -> Tensor:
    """The target's mean gradient on the straight line between two sets of outputs (B, ...), by the midpoint rule.

    Outputs of many numbers go through the target a few at a time.  Where the gradient is the same at the first few of
    the points, spread over the line, it is taken for that of all.  A logit's is the same everywhere.
    """
    known = slope_of_one(target, logits)
    if known is not None:
        return known
    some = max(1, min(AT_ONCE, ELEMENTS // logits.numel()))
    if some < AT_ONCE:
        slopes = torch.stack([_slopes(target, logits, baseline_logits, [k], SPREAD)[0] for k in range(SPREAD)])
        if torch.equal(slopes.amin(0), slopes.amax(0)):
            return slopes[0]
    total = torch.zeros_like(logits)
    for first in range(0, STEPS, some):
        total += _slopes(target, logits, baseline_logits, range(first, min(first + some, STEPS)), STEPS).sum(0)
    return total / STEPS


def _slopes(target: Target, logits: Tensor, baseline_logits: Tensor, points: Sequence[int], steps: int) -> Tensor:
    """The target's gradients (points, B, ...) at some of so many points on the line."""
    rows = torch.arange(len(logits)).repeat(len(points))
    k = torch.tensor(points, device=logits.device).repeat_interleave(len(logits))
    part = ((k + 0.5) / steps).to(logits).view(-1, *[1] * (logits.dim() - 1))
    at = (baseline_logits[rows] + part * (logits - baseline_logits)[rows]).requires_grad_()
    with torch.enable_grad():
        score = target[rows](at).sum()
    return torch.autograd.grad(score, at)[0].view(len(points), *logits.shape)


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
        derivative = vjp(out, free, torch.ones_like(out))
        change = x - was
        still = change.abs() <= 1e-6 * torch.maximum(x.abs(), was.abs())
        rise = (out.detach() - ctx.fn(was)) / torch.where(still, 1.0, change)
        derivative = torch.where(derivative.isfinite(), derivative, 0.0)  # a root at 0 that stays there
        return grads[0] * torch.where(still, derivative, rise), None, None


class _Given(torch.autograd.Function):
    """A result that is known already, with a slope for each number."""

    @staticmethod
    def forward(ctx: Any, _x: Tensor, out: Tensor, slope: Tensor, over: bool) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.over = over
        return out.detach()  # returned itself, it would be seen by other strides, for which convolutions are slower

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0].mul_(slope) if ctx.over else grads[0] * slope, None, None, None


def given(x: Tensor, out: Tensor, slope: Tensor, *, over: bool = False) -> Tensor:
    """out, as a function of x with these slopes; over: the gradient that comes back may be written over."""
    result: Tensor = _Given.apply(x, out, slope, over)
    return result


def rise(x: Tensor, was: Tensor, out: Tensor, was_out: Tensor, low: float, high: float) -> Tensor:
    """The change of a ReLU or ReLU6 over the change of its input: x (B, ...), was (B, ...) or (1, ...).

    What it gives is written into out and was_out, which may be x and was themselves.  Where nothing changes, a number
    that is nothing beside any other makes it the ReLU's own slope, which is the same for both.  It goes a piece at a
    time, because the steps on what stays in the cache take less time than those on all.
    """
    slope = torch.empty_like(x)
    change = torch.empty(0, dtype=x.dtype, device=x.device)
    nothing = torch.full((), NOTHING, dtype=x.dtype, device=x.device)
    for now, then, now_out, then_out, part in _pieces(x, was, out, was_out, slope):
        if change.shape != part.shape:
            change = torch.empty_like(part)
        own = torch.ops.aten.hardtanh_backward(nothing.expand_as(then), then, low, high)
        torch.sub(now, then, out=part).add_(NOTHING)
        torch.clamp(now, low, high, out=now_out)
        torch.clamp(then, low, high, out=then_out)
        torch.div(torch.sub(now_out, then_out, out=change).add_(own), part, out=part)
    return slope


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors (B, ...) or (1, ...) a piece at a time, by how their numbers lie; whole, where they lie in other ways."""
    x = tensors[0]
    if not x.is_cpu or not all(_is_dense(t) and t.stride()[1:] == x.stride()[1:] for t in tensors):
        yield tensors
        return
    pictures, numbers = x.shape[0], x[:1].numel()
    rows = [t.as_strided((t.shape[0], numbers), (t.stride(0), 1)) for t in tensors]
    pieces = -(-numbers * (pictures + 1) // IN_CACHE)
    yield from zip(*(t.chunk(max(1, pieces), 1) for t in rows), strict=True)


def _is_dense(t: Tensor) -> bool:
    """Whether the numbers of each row of t (B, ...) lie one behind the other, in whatever order."""
    lies = sorted((step, n) for step, n in zip(t.stride()[1:], t.shape[1:], strict=True) if n != 1)
    due = 1
    for step, n in lies:
        if step != due:
            return False
        due *= n
    return t.stride(0) >= due or t.shape[0] == 1


@dataclass(frozen=True)
class Winners:
    """Of each result of a max-pooling of x (B, C, *s) what goes to the place that wins now, and to the one before.

    gain, loss: change over change (B, N), of which one is 0.  new, old: the places (B, N), or (1, N).  All are in the
    order in which numbers lie, and places are counted so over all of a picture; last: channels lie last.
    """

    gain: Tensor
    new: Tensor
    loss: Tensor
    old: Tensor
    last: bool


def winners(x: Tensor, was: Tensor, new: Tensor, at_new: Tensor, old: Tensor, at_old: Tensor) -> Winners:
    """Where what a max-pooling gives goes back to: x (B, C, *s), was likewise or (1, C, *s), and its results for them.

    What it gains goes to the place that wins now, what it loses to the one that won before.  Where nothing changes, a
    number that is nothing beside any other makes it the winner's own slope.
    """
    last = x.stride(1) == 1 and x.shape[1] > 1
    here, there = (_places(at, x, last) for at in (at_new, at_old))
    x, was, new, old = (_line(t, last) for t in (x, was, new, old))
    change = new - old
    gain = (change + NOTHING).relu_() / (new - was.expand_as(x).gather(1, here)).add_(NOTHING)
    loss = change.neg_().relu_() / (old - x.gather(1, there.expand_as(here))).add_(NOTHING)
    return Winners(gain, here, loss, there, last)


def _line(t: Tensor, last: bool) -> Tensor:
    """The numbers of each row of t (B, C, *s) in one line, as they lie."""
    return (t.movedim(1, -1) if last else t).reshape(len(t), -1)


def _places(at: Tensor, x: Tensor, last: bool) -> Tensor:
    """Places in each channel of x (B, C, *s), in the lines of `_line`."""
    channel = torch.arange(x.shape[1], device=x.device)
    if last:
        return torch.add(channel, at.movedim(1, -1), alpha=x.shape[1]).reshape(len(at), -1)
    first = channel.mul_(x.shape[2:].numel()).view(-1, *[1] * (x.dim() - 2))
    return (at + first).reshape(len(at), -1)


class _Picked(torch.autograd.Function):
    """Max-pooling that has been run."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, won: Winners) -> Tensor:
        ctx.save_for_backward(won.gain, won.new, won.loss, won.old)
        ctx.shape, ctx.last = x.shape, won.last
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gain, new, loss, old = ctx.saved_tensors
        g = _line(grads[0], ctx.last)
        total = g.new_zeros(len(g), ctx.shape[1:].numel())
        total.scatter_add_(1, new, g * gain).scatter_add_(1, old.expand_as(new), g * loss)
        n, channels, *places = ctx.shape
        return total.view(n, *places, channels).movedim(-1, 1) if ctx.last else total.view(ctx.shape), None, None


def picked(x: Tensor, out: Tensor, won: Winners) -> Tensor:
    """out, as a function of x (B, C, *s) that goes back to these winners."""
    result: Tensor = _Picked.apply(x, out, won)
    return result


def valued(sloped: Tensor, value: Tensor) -> Tensor:
    """What has the slopes of the one and the values of the other."""
    return sloped + (value - sloped).detach()


def curve(x: Tensor, was: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """fn of each number of x by itself."""
    out: Tensor = _Curve.apply(x, was, fn)
    return out


def opened(x: Tensor, was: Tensor, low: float, high: float) -> Tensor:
    """A ReLU of x (B, ...), open between two values."""
    with torch.no_grad():
        was = was[:1] if was.stride(0) == 0 else was  # one baseline, seen as many times
        out = torch.empty_like(x)
        slope = rise(x, was, out, torch.empty_like(was), low, high)
    return given(x, out, slope)


def peaks(
    x: Tensor,
    was: Tensor,
    fn: Callable[[Tensor], tuple[Tensor, Tensor]],
    result: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Max-pooling of x (B, C, *s), and the places of the winners, counted over all of *s; result: fn of was."""
    with torch.no_grad():
        out, index = fn(x)
        won = winners(x, was, out, index, *(fn(was) if result is None else result))
    return picked(x, out, won), index


def highest(x: Tensor, was: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest number along some axes, which stay with a length of 1."""
    axes = tuple(a % x.dim() for a in axes)
    order = [a for a in range(x.dim()) if a not in axes] + list(axes)
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)]
    rows = 1
    for a in axes:
        rows *= x.shape[a]
    now, then = (t.permute(order).reshape(-1, 1, rows) for t in (x, was))
    return peaks(now, then, lambda v: tuple(v.max(-1, keepdim=True)))[0].reshape(shape)  # type: ignore[arg-type, return-value]


def product(a: Tensor, was_a: Tensor, b: Tensor, was_b: Tensor, fn: Callable[..., Tensor] = torch.mul) -> Tensor:
    """A product by any bilinear operation: of what changes in common, half goes to each factor.

    The slope towards a factor is the other one's mean: the Shapley value of two players, the factors' changes.
    """
    sloped = fn(a, (b + was_b).detach() / 2) + fn((a + was_a).detach() / 2, b)
    with torch.no_grad():
        value = fn(a, b)
    return valued(sloped, value)


def quotient(a: Tensor, was_a: Tensor, b: Tensor, was_b: Tensor) -> Tensor:
    """a / b by the rule of products turned round: a = y b, so a's change less y's mean times b's, over b's mean.

    Not the product with 1 / b, which has no bound where a divisor was near 0: a norm of features that were all 0.
    """
    value, before = (a / b).detach(), was_a / was_b
    sloped = (a - (value + before) / 2 * b) / ((b + was_b).detach() / 2)
    return valued(sloped, value)


def length(x: Tensor, was: Tensor, axes: tuple[int, ...], extra: float = 0.0, share: float = 1.0) -> Tensor:
    """The root of share times the sum of squares along some axes, plus extra; the axes stay with a length of 1.

    A root's change is that of the sum over both roots' sum, and a square's is the change times both numbers' sum.
    """

    def root(t: Tensor) -> Tensor:
        top = t.abs().amax(axes, keepdim=True).clamp_min(torch.finfo(t.dtype).tiny)  # squares of small numbers are 0
        if extra:
            return (share * t.square().sum(axes, keepdim=True) + extra).sqrt()
        return ((t / top).square().sum(axes, keepdim=True) * share).sqrt() * top

    value, before = root(x.detach()), root(was)
    both = value + before
    weight = share * (x + was).detach() / torch.where(both == 0, 1.0, both)
    return valued((weight * x).sum(axes, keepdim=True), value)


def standardised(x: Tensor, was: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """x less its mean along some axes, over its standard deviation there: a quotient of the two."""
    number = 1
    for a in axes:
        number *= x.shape[a]
    centred, was_centred = (t - t.mean(axes, keepdim=True) for t in (x, was))
    spread = length(centred, was_centred, axes, eps, 1 / number)
    was_spread = (was_centred.square().mean(axes, keepdim=True) + eps).sqrt()
    return quotient(centred, was_centred, spread, was_spread)


def _logarithmic_mean(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Of exp(a) and exp(b): the change of exp over that of its argument, as the larger argument and a factor to 1."""
    apart = (a - b).abs()
    near = apart < 1e-3
    return torch.maximum(a, b), torch.where(near, 1 - apart / 2, -torch.expm1(-apart) / torch.where(near, 1.0, apart))


def log_sum_exp(x: Tensor, was: Tensor, axes: tuple[int, ...]) -> Tensor:
    """log of the sum of exp, each by change over change, so written that no number is too large."""
    now, then = (t.detach() for t in (x, was))
    value, before = (t.logsumexp(axes, keepdim=True) for t in (now, then))
    top, factor = _logarithmic_mean(now, then)
    whole_top, whole_factor = _logarithmic_mean(value, before)
    weight = (top - whole_top).exp() * factor / whole_factor
    return valued((weight * x).sum(axes, keepdim=True), value)


def log_softmax(x: Tensor, was: Tensor, axis: int) -> Tensor:
    """x less the log of the sum of its exp."""
    least = torch.finfo(x.dtype).min / 4  # of what is masked by -inf, here and there: no change is to be handed on
    x, was = (torch.where(t == -torch.inf, least, t) for t in (x, was))
    return x - log_sum_exp(x, was, (axis,))


def softmax(x: Tensor, was: Tensor, axis: int, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """exp of the log of the softmax, each by change over change; fn gives the values."""
    log = log_softmax(x, was, axis)
    with torch.no_grad():
        before = log_softmax(was, was, axis)
        top, factor = _logarithmic_mean(log, before)
        value = fn(x)
    return valued(top.exp() * factor * log, value)
