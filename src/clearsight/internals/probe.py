"""What is measured of a network on noise: whether its scores repeat, whether its gradient is that of its scores, and
where each of its layers holds its places.

Methods take all three for granted.  One picture goes forward and back and three go forward, for each network and size
of picture, and again when its weights have changed.  Where the operations do not show that the gradient is right, one
picture more goes forward and back, and a doubtful result is measured again, more closely.  Of the three pictures one is
hardly changed, for finite differences, and one much, to be a noticeable neighbour.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from operator import is_, itemgetter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from clearsight.core import passes, rng
from clearsight.core.contents import settled_contents
from clearsight.core.model import Model
from clearsight.core.settled import tell, while_settled
from clearsight.core.uncollected import uncollected
from clearsight.core.weight_digest import Digest, version, weight_digest
from clearsight.errors import Refused
from clearsight.internals.expected_run import Expected
from clearsight.internals.finite_differences import (
    DOUBT,
    Score,
    Slopes,
    gradient,
    gradient_error,
    look_closer,
    measure_changes,
    rounding,
    step_length,
)
from clearsight.internals.kept_graph import at_rest, is_kept
from clearsight.internals.kin import Kin, kin_of, share
from clearsight.internals.mixing import mixed, random_mix
from clearsight.internals.places import Layout, Response, disturbances, entering, layouts, response
from clearsight.internals.plain_run import is_plain
from clearsight.internals.seen_run import SeenRun, Sight

_POOLS = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd, nn.Dropout, nn.Dropout2d, nn.Identity)
_APART = 0.25  # in pixel values: how far a picture's neighbour in the batch is from it
_REPEAT = 1e-3  # of the largest score: how far those of one picture may differ

Repeats = Literal["yes", "never", "by neighbours"]


@dataclass(frozen=True)
class ModuleRun:
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


@dataclass(frozen=True, eq=False)
class PlainRun:
    """A run that is plain (see plain_run.py): of one picture, and of several.

    values: the number of what each module gave, in the run of several; -1 for what is no tensor.  keeps: the network
    still holds some of what it computed, so that it must not be given memory without values.
    """

    one: SeenRun
    several: SeenRun
    values: tuple[int, ...]
    keeps: bool = False


@dataclass(frozen=True)
class Probe:
    """The results of probing a network.

    runs: every module run, in the order in which they finish.  repeats: whether a picture always gets the same scores,
    never, or only among the same neighbours; apart: by how much they differ.  slopes: whether the gradient at the
    pixels is that of the scores.  plain: the run, where that is plain, so that scores repeat and slopes are right
    whatever the weights.
    """

    runs: tuple[ModuleRun, ...]
    repeats: Repeats
    apart: float
    slopes: Slopes
    plain: PlainRun | None = None


@dataclass(eq=False)
class NetworkFacts:
    """What is known of a network for pictures of one size.

    state: that of the network then; None for one that takes over what is known of another.  kin: where the probe holds
    for all networks that are alike and run alike.  layers: whether the gradient at a layer is that of the scores.
    target: the layer that class-activation methods read by default, and why a later one is not; or why there is none.
    levels: layers of a detector, and (N,) which of them made each candidate.
    """

    state: State | None
    probe: Probe
    kin: Kin | None = None
    layers: dict[str, Slopes] = field(default_factory=dict)
    target: tuple[str, str] | Refused | None = None
    levels: tuple[tuple[str, ...], Tensor] | None = None


@dataclass(frozen=True)
class State:
    """The weights and buffers of a network, and the plain attributes of every module.

    settings: (number of the module, name of the attribute) -> value, without those that a forward pass changes.
    """

    weights: Digest
    settings: dict[tuple[int, str], object]

    @cached_property
    def readers(self) -> list[tuple[int, Callable[[dict[str, Any]], tuple[object, ...]]]]:
        """For each module that has settings its number, and what gives them all, in their order."""
        names: dict[int, list[str]] = {}
        for i, name in self.settings:
            names.setdefault(i, []).append(name)
        return [(i, _getter(those)) for i, those in names.items()]

    def holds(self, net: nn.Module) -> bool:
        """Whether the network is still in this state."""
        if weight_digest(net) != self.weights:
            return False
        attributes = settled_contents(net).attributes
        try:
            now = [*chain.from_iterable([read(attributes[i]) for i, read in self.readers])]
        except (IndexError, KeyError):
            return False
        before = self.settings.values()
        if all(map(is_, now, before)):
            return True
        return all(type(a) is type(b) and (a is b or a == b) for a, b in zip(now, before, strict=True))


def _getter(names: Sequence[str]) -> Callable[[dict[str, Any]], tuple[object, ...]]:
    """What gives the values of these names, as a tuple also where there is one."""
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda attributes: (attributes[name],)


class Unprobed(Refused):
    """The network fails on noise, so that it cannot be probed; it may still run on pictures."""


_SEEN = "seen to run as a known one"
_facts: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], NetworkFacts]] = weakref.WeakKeyDictionary()


def probed(model: Model, x: Tensor) -> Probe:
    """What a network does with pictures shaped like x (B, C, *S); measured once, on noise, inside ``undisturbed``."""
    return network_facts(model, x).probe


def network_facts(model: Model, x: Tensor) -> NetworkFacts:
    """The probe of a network, with all that was measured of its layers since."""
    entry = known_facts(model, x)
    if entry is None:
        weights = weight_digest(model.net)
        with at_rest(model), passes.uncounted(), rng.seeded(0, x[:1]), uncollected():
            settings_before = _settings(model.net)
            kin = kin_of(model.net, key_of(model, x), lambda known: _run_of_one(model, x[:1], known))
            tell(model.net, (_SEEN, key_of(model, x)), kin)
            probe, kin = (kin.probe, kin) if kin is not None else _measured_and_shared(model, x)
            settings_after = _settings(model.net)
        state = State(weights, {k: v for k, v in settings_after.items() if settings_before.get(k, v) == v})
        entry = NetworkFacts(state, probe, kin, target=None if kin is None else kin.target)
        _facts.setdefault(model.net, {})[key_of(model, x)] = entry
        while_settled(model.net, entry, lambda: True)
    return entry


def _measured_and_shared(model: Model, x: Tensor) -> tuple[Probe, Kin | None]:
    try:
        probe = _probe(model, x)
    except Refused as e:
        raise Unprobed(e.what, e.fix) from e.__cause__
    if probe.plain is None or probe.plain.keeps or (probe.repeats, probe.slopes.flows) != ("yes", "right"):
        return probe, None
    kin = Kin(Expected(probe.plain.one), probe)
    share(model.net, key_of(model, x), kin)
    return probe, kin


def _run_of_one(model: Model, x: Tensor, known: Expected) -> SeenRun | None:
    """The run of one picture x (1, C, *S), seen as when a network is probed; None where it is not the known one.

    It is not computed, unless the picture lies in another way or hooks of others are given what there is.
    """
    with torch.enable_grad(), suppress(Exception):  # it runs in another way, or cannot be seen
        z = model.normalised(x.detach().requires_grad_())
        computed = z.stride() != known.run.strides[0] or passes.is_hooked(settled_contents(model.net).modules)
        return known.seen_in(model.net, z, lambda: model.from_normalised(z), computed=computed)[1]
    return None


def seen_now(model: Model, x: Tensor) -> Kin | None:
    """As which known ones the network was seen to run pictures like x (B, C, *S) since it is settled; None: as none."""
    return while_settled(model.net, (_SEEN, key_of(model, x)), lambda: None)


def known_facts(model: Model, x: Tensor) -> NetworkFacts | None:
    """What is known of the network in the state in which it is; None: nothing."""
    entry = _facts.get(model.net, {}).get(key_of(model, x))
    if entry is None or is_kept() or _still_holds(model.net, entry):  # training moves weights, not places
        return entry
    return None


def _still_holds(net: nn.Module, entry: NetworkFacts) -> bool:
    state = entry.state
    return state is None or while_settled(net, entry, lambda: state.holds(net))


def last_probe(model: Model, x: Tensor) -> Probe | None:
    """The last probe of the network for pictures shaped like x; None if there was none."""
    entry = _facts.get(model.net, {}).get(key_of(model, x))
    return None if entry is None else entry.probe


def key_of(model: Model, x: Tensor) -> tuple[Any, ...]:
    """What else than the network a measurement is for."""
    return tuple(x.shape[1:]), x.device, model.reading, model.preprocess, model.channels_last


def _settings(net: nn.Module) -> dict[tuple[int, str], object]:
    plain = (bool, int, float, str, type(None))
    return {
        (i, name): value
        for i, m in enumerate(settled_contents(net).modules)
        for name, value in vars(m).items()
        if not name.startswith("_") and name != "training" and isinstance(value, plain)
    }


def inherit(model: Model, other: nn.Module) -> None:
    """Take over the facts of this network for another one that differs in its weights only."""
    _facts[other] = {key: replace(entry, state=None) for key, entry in _facts.get(model.net, {}).items()}


def _probe(model: Model, x: Tensor) -> Probe:
    if torch.finfo(model.dtype).bits < 32:  # too coarse for small steps: its twin of single precision is looked at
        try:
            return _measured(replace(model, net=copy.deepcopy(model.net).float()), x)
        except Exception:  # a network that casts to its own type inside, say
            pass
    return _measured(model, x)


def _measured(model: Model, x: Tensor) -> Probe:
    shape = tuple(x.shape[1:])
    generator = torch.Generator().manual_seed(0)
    start = (_APART + (1 - 2 * _APART) * torch.rand((1, *shape), generator=generator)).to(x)
    near, far = disturbances(shape, generator)
    last = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1
    directions = torch.stack([near, last.double()]).to(x)
    mix = random_mix(model, start, generator)
    alone, slope, one = _score_one(model, start, mix)
    score_rounding = rounding(alone, model.dtype)
    rounding_error = score_rounding * float(mix.norm())
    step = step_length(directions[:1] if slope is None else slope, rounding_error)
    three = torch.cat([start, start + step * directions[:1], start + _APART * far.to(x)])
    runs, scores, plain = _run_modules(model, three, one)
    change = float((alone[0] - scores[0]).abs().max())
    if not bool(torch.cat([alone, scores]).isfinite().all()):
        return Probe(runs, "yes", 0.0, Slopes("unknown"))
    if change > max(_REPEAT * float(alone.abs().max()), score_rounding):
        return Probe(runs, _how_it_repeats(model, start, score_rounding), change, Slopes("unknown"))
    if slope is None:
        return Probe(runs, "yes", change, Slopes("none"))
    if plain is not None and bool(slope.any()):  # no finite difference would change that
        return Probe(runs, "yes", change, Slopes("right"), plain)

    def score(z: Tensor) -> Tensor:
        return mixed(model(z), mix)

    error = gradient_error(
        measure_changes(score, start, slope, mixed(scores[:2], mix), directions, rounding_error), rounding_error
    )
    if error is not None and error <= DOUBT:
        return Probe(runs, "yes", change, Slopes("right", error), plain)
    return Probe(runs, "yes", change, look_closer(score, start, _in_double(model, mix), model.dtype), plain)


def _score_one(model: Model, start: Tensor, mix: Tensor) -> tuple[Tensor, Tensor | None, SeenRun | None]:
    """The scores of one picture, the gradient of their mix, None where none comes back, and the run, if it was seen."""
    seen: list[tuple[Tensor, SeenRun | None]] = []

    def score(z: Tensor) -> Tensor:
        seen[:] = [_seen(model, z)]
        return mixed(seen[0][0], mix)

    try:
        _, slope = gradient(score, start)
        scores, run = seen[0]
        return scores.detach(), slope if slope is not None and bool(slope.isfinite().all()) else None, run
    except Exception:  # a way back that fails is told by whoever needs it
        with torch.no_grad():
            return model(start), None, None


def _seen(model: Model, x: Tensor) -> tuple[Tensor, SeenRun | None]:
    """The scores of pixels x (B, C, *S), and the run that gave them; None where it cannot be seen."""
    z = model.normalised(x)
    sight = Sight(model.net, z)
    try:
        out = sight.look(lambda: model.from_normalised(z))
        return out, sight.run(out)
    except Exception:  # who sees operations gets into the way of some networks
        return model(x), None


def _run_modules(model: Model, x: Tensor, one: SeenRun | None) -> tuple[tuple[ModuleRun, ...], Tensor, PlainRun | None]:
    """Every module run in one forward pass of x (3, C, *S): a picture, and the same disturbed; and the scores.

    one: the run of one picture, if it was seen; then it is looked at whether the run is plain.
    """
    z = model.normalised(x)
    if one is not None:
        sight = Sight(model.net, z)
        try:
            runs, scores, values = _noted(model, z, sight)
            several = sight.run(scores)
            scores = scores.clone()
            plain = is_plain(one, several, len(x))
            return runs, scores, PlainRun(one, several, values, sight.is_kept(several)) if plain else None
        except Exception:  # it is run unseen, and fails in its own words
            pass
    runs, scores, _ = _noted(model, z, None)
    return runs, scores, None


def _noted(model: Model, z: Tensor, sight: Sight | None) -> tuple[tuple[ModuleRun, ...], Tensor, tuple[int, ...]]:
    """Every module run in a pass of normalised pictures z (3, C, *S), the scores, and the number of what each gave."""
    responses: list[tuple[ModuleRun, Response | None]] = []
    inputs: list[Response] = []
    values: list[int] = []
    last: list[tuple[Tensor, int, Response]] = []  # what was given last: many modules only hand it on

    def note(name: str, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        values.append(sight.number_of(out) if sight is not None and isinstance(out, Tensor) else -1)
        if args and isinstance(args[0], Tensor):
            inputs.append(entering(module, args[0]))
        whole = isinstance(out, Tensor) and out.dim() > 0 and len(out) == len(z)
        shape = tuple(out.shape) if isinstance(out, Tensor) else None
        if whole:
            shape = (1, *out.shape[1:])
        leaf = next(module.children(), None) is None and next(module.parameters(), None) is not None
        kinds = isinstance(module, _ConvNd), isinstance(module, _POOLS), leaf
        module_run = ModuleRun(name, type(module).__name__, shape, *kinds)
        if not whole:
            responses.append((module_run, None))
            return
        if last and last[0][0] is out and last[0][1] == version(out):
            response_found = entering(module, out, last[0][2])
        else:
            response_found = response(module, out)
        last[:] = [(out, version(out), response_found)]
        responses.append((module_run, response_found))

    def note_aside(name: str, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        with nullcontext() if sight is None else sight.aside():
            note(name, module, args, out)

    handles = [
        m.register_forward_hook(lambda module, args, out, name=n: note_aside(name, module, args, out))
        for n, m in model.net.named_modules()
        if n and not isinstance(m, torch.jit.ScriptModule)
    ]

    def run() -> Tensor:
        return model.from_normalised(z)

    try:
        with torch.no_grad():
            scores = run() if sight is None else sight.look(run)
    finally:
        for h in handles:
            h.remove()
    response_found = layouts([r for _, r in responses], inputs, tuple(z.shape[2:]))
    runs = tuple(replace(s, layout=at) for (s, _), at in zip(responses, response_found, strict=True))
    return runs, scores, tuple(values)


def _how_it_repeats(model: Model, start: Tensor, equal: float) -> Repeats:
    """Whether scores never repeat, or depend on the neighbours: the same picture alone, twice, decides."""
    with torch.no_grad():
        once, again = model(start), model(start)
    differ = float((once - again).abs().max()) > max(_REPEAT * float(once.abs().max()), equal)
    return "never" if differ else "by neighbours"


def _in_double(model: Model, mix: Tensor) -> Score | None:
    """The score by a copy of the network in double precision; None where there can be none."""
    try:
        twin = replace(model, net=copy.deepcopy(model.net).double())
        with torch.no_grad():
            twin(torch.rand(1, model.preprocess.channels, *model.preprocess.size).double().to(model.device))
    except Exception:  # what cannot be copied, or computes in a type of its own
        return None
    return lambda z: mixed(twin(z), mix)
