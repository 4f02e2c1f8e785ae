"""Randomisation of a network's weights, layer by layer (Adebayo et al. 2018, arXiv:1810.03292)."""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core import passes
from clearsight.core.copying import copied, plain
from clearsight.core.model import Model
from clearsight.errors import Refused
from clearsight.internals.probe import NetworkFacts, inherit, network_facts
from clearsight.internals.watch import Watch

# operations that multiply what they are given by weights, and at which positions weights may stand
_WEIGHS = {
    "convolution": (1,), "_convolution": (1,), "linear": (1,), "addmm": (1, 2), "baddbmm": (1, 2), "mm": (0, 1),
    "bmm": (0, 1), "mv": (0, 1), "addmv": (1, 2), "matmul": (0, 1), "embedding": (0,),
    "mkldnn_rnn_layer": (1, 2), "_native_multi_head_attention": (5, 7), "_thnn_fused_lstm_cell": (), "_cudnn_rnn": (1,),
}  # fmt: skip

Name = tuple[str, str]  # a module's, and that of its parameter or buffer


@dataclass
class Uses:
    """How one forward pass uses a network's parameters and buffers.

    last: for each module the number of the last operation that reads one of its own.  weights: for each module what
    enters products and convolutions as a weight, computed from its own, each as a sum and a norm.  buffers: those that
    act as weights.
    """

    last: dict[str, int] = field(default_factory=dict)
    weights: dict[str, set[tuple[float, float]]] = field(default_factory=dict)
    buffers: set[Name] = field(default_factory=set)


class _WatchOperations(Watch):
    """Records every operation of a pass, and which of its arguments come from the network alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses, self.number = Uses(), 0
        self.alive: list[Tensor] = []  # so that no storage is given away twice
        self.sources: dict[int, frozenset[Name]] = {}
        self.buffers: set[Name] = set()
        for at, m in net.named_modules(remove_duplicate=False):
            for name, t in (*m._parameters.items(), *m._buffers.items()):
                if t is not None:
                    where = t.untyped_storage().data_ptr()
                    self.sources[where] = self.sources.get(where, frozenset()) | {(at, name)}
            self.buffers |= {(at, name) for name in m._buffers}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "quantized":
            raise _quantised(f"the operation {func.overloadpacket.__name__}")
        tensors = _tensors((args, kwargs))
        sources = [self.sources.get(t.untyped_storage().data_ptr()) for t in tensors]
        known_sources = [s for s in sources if s is not None]
        self.number += 1
        if None in sources:
            for at, _ in {n for s in known_sources for n in s}:
                self.uses.last[at] = self.number
            for place in _WEIGHS.get(func.overloadpacket.__name__, ()):
                for t in _tensors(args[place] if place < len(args) else None):
                    self._weight(t)
        out = func(*args, **kwargs)
        if None not in sources:  # computed from the network's own: a weight on its way
            for t in _tensors(out):
                self.alive.append(t)
                where = t.untyped_storage().data_ptr()
                self.sources[where] = frozenset().union(*known_sources, self.sources.get(where, ()))
        return out

    def _weight(self, t: Tensor) -> None:
        names = self.sources.get(t.untyped_storage().data_ptr(), frozenset())
        if not names or not (t.is_floating_point() or t.is_complex()):
            return
        fingerprint = _fingerprint(t.detach())
        for at, name in names:
            self.uses.weights.setdefault(at, set()).add(fingerprint)
            if (at, name) in self.buffers:
                self.uses.buffers.add((at, name))


def _fingerprint(t: Tensor) -> tuple[float, float]:
    """The sum of a weight and its norm, by which it is recognised."""
    t = torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
    return float(t.sum(dtype=torch.float64)), float(torch.linalg.vector_norm(t, dtype=torch.float64))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, list | tuple) else []


def uses(model: Model, x: Tensor) -> Uses:
    """What a forward pass of x (B, C, *S) does with the network's own tensors.

    Refused: networks with quantised weights, which are packed and cannot be drawn anew.
    """
    return _watch_pass(model, x)[0]


def _watch_pass(model: Model, x: Tensor) -> tuple[Uses, Tensor]:
    """The same, and the logits (B, K) of that pass."""
    for name, m in model.net.named_modules():
        if type(m).__module__.startswith("torch.ao.nn") and "quantized" in type(m).__module__:
            raise _quantised(f"layer {name}")
    watch = _WatchOperations(model.net)
    with model.undisturbed(), passes.uncounted(), torch.no_grad(), watch:
        logits = model(x.to(model.device))
    return watch.uses, logits.float().cpu()


def _quantised(where: str) -> Refused:
    return Refused(f"the network holds quantised weights ({where}), which cannot be drawn anew: give it unquantised")


@dataclass(eq=False)
class Unlearnt:
    """A copy of a classifier from which layers are taken, one after the other, and what to compare it with.

    model: the copy, with every weight as its layer uses it.  layers: the modules that hold parameters, statistics or
    buffers that act as weights, from the output to the input by where each is last used; those that are never run
    stand at the end.
    """

    model: Model
    layers: list[str]
    before: Uses
    drawn: set[str] = field(default_factory=set)
    changed: bool = False

    def draw(self, names: Sequence[str]) -> None:
        """Draw some layers anew, from the global generator."""
        for name in names:
            layer = self.model.net.get_submodule(name)
            before = [t.detach().clone() for t in _tensors_of(layer)]
            reinitialise(layer, [b for at, b in self.before.buffers if at == name])
            self.changed |= any(not torch.equal(a, b) for a, b in zip(before, _tensors_of(layer), strict=True))
        self.drawn |= set(names)

    def check(self, x: Tensor, logits: Tensor) -> bool:
        """Whether the scores of pictures x (B, C, *S) are others than logits (B, K); False where nothing was to draw.

        Refused: where a layer that was drawn still uses its old weights, and where the weights are others and the
        scores of a picture are not, because a comparison with such a network means nothing.
        """
        after, scores = _watch_pass(self.model, x)
        for name in self.layers:
            old_weights = self.before.weights.get(name, set()) & after.weights.get(name, set())
            if name in self.drawn and any(norm > 0 for _, norm in old_weights):
                raise Refused(
                    f"layer {name or 'of the network itself'} uses the same weights after they were drawn anew (a hook "
                    "or its own code restores them), so this network cannot be randomised"
                )
        same_scores = unchanged(logits, scores)
        if self.changed and bool(same_scores.any()):
            raise Refused(
                f"with {len(self.drawn)} of {len(self.layers)} layers randomised, the scores of "
                f"{int(same_scores.sum())} of {len(x)} pictures do not change, so this network cannot be randomised"
            )
        return not bool(same_scores.any())


_uses_of: weakref.WeakKeyDictionary[NetworkFacts, tuple[Uses, list[str]]] = weakref.WeakKeyDictionary()


def unlearnt(model: Model, x: Tensor) -> Unlearnt:
    """A copy of a classifier to draw anew, given a picture x (1, C, *S) that shows the order of its layers.

    What the pass that shows it does with the weights is found once, and asked again when they have changed.
    """
    entry = _facts_of(model, x)
    copy = dataclasses.replace(model, net=plain(model.net))
    inherit(model, copy.net)  # of a random network nothing is asked that is known of this one
    if entry not in _uses_of:
        network_uses = uses(copy, x)
        uses_and_layers = network_uses, _output_to_input(copy.net, network_uses)
        if entry.state is None:  # which nobody asks whether it still holds
            return Unlearnt(copy, uses_and_layers[1], network_uses)
        _uses_of[entry] = uses_and_layers
    network_uses, layers = _uses_of[entry]
    return Unlearnt(copy, list(layers), network_uses)


def from_output_to_input(model: Model, x: Tensor) -> list[str]:
    """The modules whose parameters can be drawn anew, the last to be used first; those never run stand at the end."""
    entry = _facts_of(model, x)
    return list(_uses_of[entry][1]) if entry in _uses_of else unlearnt(model, x).layers


def _facts_of(model: Model, x: Tensor) -> NetworkFacts:
    with model.undisturbed():
        return network_facts(model, x.to(model.device))


def _output_to_input(net: nn.Module, network_uses: Uses) -> list[str]:
    with_buffers = {at for at, _ in network_uses.buffers}
    layers = [name for name, m in net.named_modules() if _learns(m) or name in with_buffers]
    place = {name: i for i, name in enumerate(layers)}  # of what one operation reads, the last comes last
    return sorted(layers, key=lambda name: (-network_uses.last.get(name, -1), -place[name]))


def scores_now(model: Model, x: Tensor) -> Tensor:
    """Logits (B, K) of pictures x (B, C, *S), from the model undisturbed and not counted as passes."""
    with model.undisturbed(), passes.uncounted(), torch.no_grad():
        return model(x.to(model.device)).float().cpu()


def unchanged(a: Tensor, b: Tensor) -> Tensor:
    """Of which pictures the outputs (B, ...) are the same up to rounding, (B,) bool."""
    a, b = a.flatten(1), b.flatten(1)
    return ((a - b).abs() <= 1e-5 * a.abs().amax(1, keepdim=True)).all(1)


def reinitialise(layer: nn.Module, buffers: Collection[str] = ()) -> None:
    """Fresh values for a layer's own parameters and running statistics, from the global generator.

    buffers: names of those that act as weights, and are drawn like parameters without a reset of their own: from a
    normal of their root mean square.  So are weights (of two and more axes) that a reset leaves as they were.
    """
    before = {name: p.detach().clone() for name, p in layer.named_parameters(recurse=False)}
    reset = getattr(layer, "reset_parameters", None)
    with torch.no_grad():
        done = callable(reset) and _reset_ran(reset)
        for name, p in layer.named_parameters(recurse=False):
            if not done or (p.dim() > 1 and torch.equal(p, before[name])):
                _normal(p)
        for name in buffers:
            _normal(layer.get_buffer(name))


def _reset_ran(reset: Any) -> bool:
    """Whether a reset without arguments ran."""
    try:
        reset()
    except TypeError:
        return False
    return True


def _normal(t: Tensor) -> None:
    if not (t.is_floating_point() or t.is_complex()):
        raise _quantised(f"of type {t.dtype}")
    t.normal_(0, float(t.abs().float().square().mean().sqrt()))


def again_from(start: Unlearnt) -> Unlearnt:
    """The copy as it was before anything was drawn, given one of which nothing is."""
    model = dataclasses.replace(start.model, net=copied(start.model.net))
    inherit(start.model, model.net)
    return Unlearnt(model, start.layers, start.before)


def fresh(seed: int, stage: int) -> int:
    """A seed with which nobody's training began: manual_seed(0) and a reset would give back its first weights."""
    return int.from_bytes(hashlib.sha256(f"sanity {seed} {stage}".encode()).digest()[:7], "big")


def _tensors_of(m: nn.Module) -> list[Tensor]:
    return [t for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]


def _learns(m: nn.Module) -> bool:
    """Does the module itself hold parameters, or statistics that it gathered?"""
    return any(True for _ in m.parameters(recurse=False)) or getattr(m, "running_mean", None) is not None


def cuts(layers: int, stages: int) -> list[int]:
    """How many layers are random after each stage: the output layer alone, then equal portions.

    >>> cuts(9, 5)
    [1, 3, 5, 7, 9]
    """
    if stages == 1:
        return [layers]
    return [round(1 + (layers - 1) * k / (stages - 1)) for k in range(stages)]
