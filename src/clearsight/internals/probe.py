"""What a network does, measured on noise once: whether it repeats itself, whether its gradient is that of its scores,
and where each of its layers holds its places.

Methods take all three for granted.  Three pictures go forward and two forward and back, for each network and size of
picture, and again when its weights have changed.  Only where that look is in doubt a longer one follows.  Of the three
one is hardly changed, for finite differences, and one far, so that it is a neighbour that would be noticed.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from clearsight.core import passes, rng
from clearsight.core.classifier import Classifier
from clearsight.errors import Refused
from clearsight.internals.finite_differences import (
    DOUBT,
    Score,
    Slopes,
    closer,
    gradient,
    held_against,
    off,
    rounding,
    step_of,
)
from clearsight.internals.places import Layout, Response, disturbances, entering, layouts, response

_POOLS = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd, nn.Dropout, nn.Dropout2d, nn.Identity)
_APART = 0.25  # in pixel values: how far a picture's neighbour in the batch is from it
_REPEAT = 1e-3  # of the largest score: how far those of one picture may differ

Repeats = Literal["yes", "never", "by neighbours"]


@dataclass(frozen=True)
class Seen:
    """One run of one module in a forward pass.

    shape: of its output for one picture, (1, ...); None where that is not a tensor.  layout: where its places are; None
    where it has none, or none that can be told.  learns: it has weights of its own and no modules inside.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    convolves: bool
    pools: bool
    learns: bool = False
    layout: Layout | None = None


@dataclass(frozen=True)
class Probe:
    """What was found.

    seen: every module run, in the order in which they finish.  repeats: whether a picture always gets the same scores,
    never, or only among the same neighbours; apart: by how much they differ.  slopes: whether the gradient at the
    pixels is that of the scores.
    """

    seen: tuple[Seen, ...]
    repeats: Repeats
    apart: float
    slopes: Slopes


@dataclass(eq=False)
class Known:
    """What is known of a network for pictures of one size.

    state: that of the network then; None for one that takes over what is known of another.  layers: whether the
    gradient at a layer is that of the scores.  target: the layer that class-activation methods read by default, and why
    a later one is not; or why there is none.
    """

    state: State | None
    probe: Probe
    layers: dict[str, Slopes] = field(default_factory=dict)
    target: tuple[str, str] | Refused | None = None


@dataclass(frozen=True)
class State:
    """Where every weight and buffer lies and how often it was written to, and the plain attributes of every module.

    settings: (number of the module, name of the attribute) -> value, without those that a forward pass changes.
    """

    weights: list[tuple[int, int]]
    settings: dict[tuple[int, str], object]

    def holds(self, net: nn.Module) -> bool:
        """Whether the network is still in this state."""
        return weights_of(net) == self.weights and self.settings.items() <= _settings(net).items()


class Unprobed(Refused):
    """The network fails on noise, so that nothing can be found out about it; it may run on pictures all the same."""


_known: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Known]] = weakref.WeakKeyDictionary()
_settled: ContextVar[nn.Module | None] = ContextVar("settled", default=None)


def probed(model: Classifier, x: Tensor) -> Probe:
    """What a network does with pictures shaped like x (B, C, *S); measured once, on noise, inside ``undisturbed``."""
    return known(model, x).probe


def known(model: Classifier, x: Tensor) -> Known:
    """The same, with all that was found out about its layers since."""
    key = _key(model, x)
    entries = _known.setdefault(model.net, {})
    entry = entries.get(key)
    fresh = entry is not None and (_settled.get() is model.net or entry.state is None or entry.state.holds(model.net))
    if entry is None or not fresh:
        with passes.uncounted(), rng.seeded(0, x[:1]):
            before = _settings(model.net)
            try:
                probe = _probe(model, x)
            except Refused as e:
                raise Unprobed(e.what, e.fix) from e.__cause__
            after = _settings(model.net)
        state = State(weights_of(model.net), {k: v for k, v in after.items() if before.get(k, v) == v})
        entry = entries[key] = Known(state, probe)
    return entry


def last_known(model: Classifier, x: Tensor) -> Probe | None:
    """What was found when the network was last looked at; None where it never was, for pictures shaped like x."""
    entry = _known.get(model.net, {}).get(_key(model, x))
    return None if entry is None else entry.probe


def _key(model: Classifier, x: Tensor) -> tuple[Any, ...]:
    return tuple(x.shape[1:]), x.device, model.output, model.scores, model.preprocess, model.channels_last


@contextmanager
def settled(model: Classifier) -> Iterator[None]:
    """Inside, the network is taken not to change: whether what is known of it still holds is not asked again."""
    token = _settled.set(model.net)
    try:
        yield
    finally:
        _settled.reset(token)


def weights_of(net: nn.Module) -> list[tuple[int, int]]:
    """Where every weight and buffer lies, and how often it was written to."""
    return [(t.data_ptr(), _written(t)) for t in (*net.parameters(), *net.buffers())]


def _written(t: Tensor) -> int:
    """How often a tensor was written to; -1 where that is not counted."""
    return -1 if t.is_inference() else t._version


def _settings(net: nn.Module) -> dict[tuple[int, str], object]:
    plain = (bool, int, float, str, type(None))
    return {
        (i, name): value
        for i, m in enumerate(net.modules())
        for name, value in vars(m).items()
        if not name.startswith("_") and name != "training" and isinstance(value, plain)
    }


def inherit(model: Classifier, other: nn.Module) -> None:
    """Take for another network, the same but for its weights, what is known of this one."""
    _known[other] = {key: replace(entry, state=None) for key, entry in _known.get(model.net, {}).items()}


def _probe(model: Classifier, x: Tensor) -> Probe:
    if torch.finfo(model.dtype).bits < 32:  # too coarse for small steps: its twin of single precision is looked at
        try:
            return _measured(replace(model, net=copy.deepcopy(model.net).float()), x)
        except Exception:  # a network that casts to its own type inside, say
            pass
    return _measured(model, x)


def _measured(model: Classifier, x: Tensor) -> Probe:
    shape = tuple(x.shape[1:])
    generator = torch.Generator().manual_seed(0)
    start = (_APART + (1 - 2 * _APART) * torch.rand((1, *shape), generator=generator)).to(x)
    near, far = disturbances(shape, generator)
    last = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1
    directions = torch.stack([near, last.double()]).to(x)
    mix = torch.randn(len(model.labels), generator=generator, dtype=torch.float64).to(x.device)
    alone, slope = _alone(model, start, mix)
    equal = rounding(alone, model.dtype)
    apart = equal * float(mix.norm())
    step = step_of(directions[:1] if slope is None else slope, apart)
    seen, scores = _walk(model, torch.cat([start, start + step * directions[:1], start + _APART * far.to(x)]))
    change = float((alone[0] - scores[0]).abs().max())
    if not bool(torch.cat([alone, scores]).isfinite().all()):
        return Probe(seen, "yes", 0.0, Slopes("unknown"))
    if change > max(_REPEAT * float(alone.abs().max()), equal):
        return Probe(seen, _why(model, start, equal), change, Slopes("unknown"))
    if slope is None:
        return Probe(seen, "yes", change, Slopes("none"))

    def score(z: Tensor) -> Tensor:
        return model(z).double() @ mix

    found = off(held_against(score, start, slope, scores[:2].double() @ mix, directions, apart), apart)
    if found is not None and found <= DOUBT:
        return Probe(seen, "yes", change, Slopes("right", found))
    return Probe(seen, "yes", change, closer(score, start, _in_double(model, mix), model.dtype))


def _alone(model: Classifier, start: Tensor, mix: Tensor) -> tuple[Tensor, Tensor | None]:
    """The scores of one picture, and the gradient of their mix; None where none comes back."""
    kept: list[Tensor] = []

    def score(z: Tensor) -> Tensor:
        kept[:] = [model(z)]
        return kept[0].double() @ mix

    try:
        _, slope = gradient(score, start)
        return kept[0].detach(), slope if slope is not None and bool(slope.isfinite().all()) else None
    except Exception:  # a way back that fails is told by whoever needs it
        with torch.no_grad():
            return model(start), None


def _walk(model: Classifier, x: Tensor) -> tuple[tuple[Seen, ...], Tensor]:
    """Every module run in one forward pass of x (3, C, *S): a picture, and the same disturbed; and the scores."""
    ran: list[tuple[Seen, Response | None]] = []
    taken: list[Response] = []
    last: list[tuple[Tensor, int, Response]] = []  # what was given last: many modules only hand it on

    def note(name: str, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if args and isinstance(args[0], Tensor):
            taken.append(entering(module, args[0]))
        whole = isinstance(out, Tensor) and out.dim() > 0 and len(out) == len(x)
        shape = tuple(out.shape) if isinstance(out, Tensor) else None
        if whole:
            shape = (1, *out.shape[1:])
        leaf = next(module.children(), None) is None and next(module.parameters(), None) is not None
        kinds = isinstance(module, _ConvNd), isinstance(module, _POOLS), leaf
        seen = Seen(name, type(module).__name__, shape, *kinds)
        if not whole:
            ran.append((seen, None))
            return
        if last and last[0][0] is out and last[0][1] == _written(out):
            found = entering(module, out, last[0][2])
        else:
            found = response(module, out)
        last[:] = [(out, _written(out), found)]
        ran.append((seen, found))

    handles = [
        m.register_forward_hook(lambda module, args, out, name=n: note(name, module, args, out))
        for n, m in model.net.named_modules()
        if n and not isinstance(m, torch.jit.ScriptModule)
    ]
    try:
        with torch.no_grad():
            scores = model(x)
    finally:
        for h in handles:
            h.remove()
    found = layouts([r for _, r in ran], taken, tuple(x.shape[2:]))
    return tuple(replace(s, layout=at) for (s, _), at in zip(ran, found, strict=True)), scores


def _why(model: Classifier, start: Tensor, equal: float) -> Repeats:
    """Why scores differ: the picture alone, twice, tells."""
    with torch.no_grad():
        once, again = model(start), model(start)
    differ = float((once - again).abs().max()) > max(_REPEAT * float(once.abs().max()), equal)
    return "never" if differ else "by neighbours"


def _in_double(model: Classifier, mix: Tensor) -> Score | None:
    """The score by a copy of the network in double precision; None where there can be none."""
    try:
        twin = replace(model, net=copy.deepcopy(model.net).double())
        with torch.no_grad():
            twin(torch.rand(1, model.preprocess.channels, *model.preprocess.size).double().to(model.device))
    except Exception:  # what cannot be copied, or computes in a type of its own
        return None
    return lambda z: twin(z).double() @ mix
