"""Whether a gradient is that of the scores: autograd's compared with finite differences along a few directions.

A gradient may exist and yet lack what ran under ``torch.no_grad()``, behind ``detach`` or through NumPy.  Along a
random direction the scores then change by another amount than the gradient says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Flows = Literal["right", "wrong", "none", "unknown"]
Score = Callable[[Tensor], Tensor]  # points (n, ...) -> (n,) float64, differentiable

DOUBT = 0.25  # of the slopes: from this difference on a gradient is measured again, more closely
_EXACT = 0.05  # a difference at which it is wrong, in double precision, where steps are as small as one likes
_WRONG = 0.5  # the same where they are not
_MORE = 8  # directions of the longer look
_EXACTLY = 3  # of them in double precision
_BLIND = 0.05  # of the change that is expected: so little, and the steps are too small for what the network rounds
_ROUNDING = 50  # times the precision of the type: how far equal scores may differ
_FAR = 100.0  # times the rounding of the scores: how far a step is to move them; far steps pass many kinks
_SHARP = 1000  # times further in double precision, which is still next to nothing
_TINY = 1e-4  # step: a longer one passes kinks, and is not next to nothing
_SMALLEST = 1e-5  # step where the gradient is 0: too small to come upon a kink
_LARGEST = 0.02  # step, in units of what the directions are made of
_LARGE = (1 / 255, 4 / 255)  # steps for networks that round their input


@dataclass(frozen=True)
class Slopes:
    """The result: "none" if no gradient comes back, "unknown" if the scores do not change.

    off: the share of the slopes, as finite differences measure them, by which the gradient is wrong.
    """

    flows: Flows
    off: float = 0.0


@dataclass(frozen=True)
class Change:
    """The measured change of the score along a direction, that by its gradient, and the usual one for its length."""

    change: float
    expected: float
    usual: float


def rounding(scores: Tensor, dtype: torch.dtype) -> float:
    """How far scores that should be equal may differ in arithmetic of a type."""
    return _ROUNDING * torch.finfo(dtype).eps * max(float(scores.detach().abs().max()), 1e-30)


def gradient(score: Score, at: Tensor) -> tuple[Tensor, Tensor | None]:
    """The score of points (n, ...), (n,), and its gradient (n, ...), None where none comes back."""
    z = at.detach().requires_grad_()
    with torch.enable_grad():
        value = score(z)
    g = torch.autograd.grad(value.sum(), z, allow_unused=True)[0] if value.requires_grad else None
    return value.detach(), None if g is None else g.double()


def step_length(slope: Tensor, apart: float) -> float:
    """The step along directions of +-1 at which rounding, which moves the score by `apart`, does not matter."""
    if not bool(slope.any()):
        return _SMALLEST
    return min(_LARGEST, _FAR * apart / float(slope.norm()))


def measure_changes(
    score: Score, start: Tensor, slope: Tensor, values: Tensor, directions: Tensor, apart: float
) -> list[Change]:
    """The changes of the score along directions (n, ...), by finite differences and by the gradient.

    start (1, ...): a point, and slope its gradient.  values (1 + n - 1,): the score there and one step along all of the
    directions but the last.  Along the last, and along the gradient with it, two gradients are compared, that at the
    start and that one step away: their mean is the slope between, in networks with kinks too.
    """
    step = step_length(slope, apart)
    changes = [
        _change(v - values[0], slope[0], step * d) for v, d in zip(values[1:], directions[:-1].double(), strict=True)
    ]
    ahead = directions[-1].double() + slope[0] / slope.norm().clamp_min(1e-30)
    value, further = gradient(score, start + (step * ahead).to(start))
    if further is not None:
        changes.append(_change(value[0] - values[0], (slope + further)[0] / 2, step * ahead))
    return changes


def _change(change: Tensor, slope: Tensor, way: Tensor) -> Change:
    parts = slope * way
    return Change(float(change), float(parts.sum()), float(parts.norm()))


def gradient_error(changes: Sequence[Change], apart: float) -> float | None:
    """The difference between measured and expected changes, as a share of them; None where all is rounding.

    Two changes that both happen to be small are compared with the usual change for a gradient of that length.
    """
    size = max(_size([c.change for c in changes]), _size([c.expected for c in changes]))
    if not size > 3 * apart:
        return None
    return _size([c.change - c.expected for c in changes]) / max(size, _size([c.usual for c in changes]) / 2)


def look_closer(score: Score, start: Tensor, double: Score | None, dtype: torch.dtype) -> Slopes:
    """Measure again along more directions; double: the score by the same network in double precision, if possible.

    Where steps, however small, change nothing that the gradient says they should, the network rounds what it is given;
    steps of whole pixel values then decide.
    """
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (_MORE, *start.shape[1:]), generator=generator).to(start) * 2 - 1
    if double is not None:
        exact = _look_in_double(double, start.double(), signs[:_EXACTLY].double())
        if exact is not None:
            return exact
    best: float | None = None
    for step in (0.0, *_LARGE):
        error = _measure(score, start, signs, dtype, step).off
        best = error if best is None or (error is not None and error < best) else best
    if best is None:
        return Slopes("unknown")
    return Slopes("wrong" if best > _WRONG else "right", best)


@dataclass(frozen=True)
class _Look:
    """One measurement: the error of the gradient (off), the measured slopes, and the length of the steps.

    blind: whether next to nothing changed that should have.
    """

    off: float | None
    slopes: list[float]
    step: float
    blind: bool


def _look_in_double(score: Score, start: Tensor, signs: Tensor) -> Slopes | None:
    """Measure with tiny steps in double precision; None where these prove nothing.

    A network may cast to single precision inside, or its scores depend on the picture by less than it rounds.  Then
    longer steps measure other slopes, and neither these nor those are proof.
    """
    near = _measure(score, start, signs, torch.float64, 0.0)
    if near.off is None:
        return Slopes("unknown")
    if near.blind or near.step > _TINY:
        return None
    if near.off <= _EXACT:
        return Slopes("right", near.off)
    value, slope = gradient(score, start)
    if slope is None:
        return Slopes("wrong", near.off)
    far = _measure(score, start, signs, torch.float64, step_length(slope, rounding(value, torch.float32)))
    if far.off is not None and far.off <= _EXACT:
        return Slopes("right", far.off)
    apart = _size([a - b for a, b in zip(near.slopes, far.slopes, strict=True)])
    return Slopes("wrong", near.off) if apart <= DOUBT * max(_size(near.slopes), _size(far.slopes)) else None


def _measure(score: Score, start: Tensor, signs: Tensor, dtype: torch.dtype, step: float) -> _Look:
    """Central differences along directions, one step (0: as long as rounding asks for) to both sides."""
    value, slope = gradient(score, start)
    if slope is None:
        return _Look(1.0, [], 0.0, False)
    apart = rounding(value, dtype)
    step = step or step_length(slope, apart * (_SHARP if dtype == torch.float64 else 1))
    changes = []
    for d in signs:
        with torch.no_grad():
            ends = score(torch.cat([start + step * d, start - step * d]))
        changes.append(_change(ends[0] - ends[1], slope[0], 2 * step * d.double()))
    measured, expected = _size([c.change for c in changes]), _size([c.expected for c in changes])
    blind = measured < _BLIND * expected
    return _Look(gradient_error(changes, apart), [c.change / (2 * step) for c in changes], step, blind)


def _size(values: Sequence[float]) -> float:
    return float(sum(v * v for v in values) ** 0.5)
