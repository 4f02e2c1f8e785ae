"""The default layer of class-activation methods: the last that holds places and through which everything passes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import prod

import torch
from torch import Tensor, nn

from clearsight.core import passes, rng
from clearsight.core.forwards import unseen
from clearsight.core.model import Model
from clearsight.errors import Notice, Refused
from clearsight.internals.kept_graph import at_rest
from clearsight.internals.places import as_maps
from clearsight.internals.plain_run import always_agree, everything_through, reads_no_place
from clearsight.internals.probe import ModuleRun, Probe, network_facts

_SAME = 0.01  # of the difference between the scores of two pictures: as good as none

Swap = Callable[[Tensor], Tensor]  # what a layer gives for two pictures -> the same, that of each for the other


def target_layer(model: Model, x: Tensor) -> str:
    """The last feature maps before the spatial axes are pooled away: what class-activation methods read by default.

    x (B, C, *S).  It is looked for once, on noise: the last convolution whose output still has more than one place,
    then on through what follows at the same resolution (normalisation, activation, the block and the stage around
    them).  One branch of a block does not qualify, nor does a module that runs several times: everything must pass
    through the layer.  A transformer, whose last convolution only cuts the picture into patches, is read where its
    tokens were last mixed: at the last layer through which everything passes and on whose places the scores depend.

    A Notice says where a layer with places comes after the one that is read, and why that one is not.
    Refused for networks without any such layer.
    """
    layer, later = layer_and_later(model, x)
    if later:
        warnings.warn(early(layer, later), Notice, stacklevel=2)
    return layer


def layer_and_later(model: Model, x: Tensor) -> tuple[str, str]:
    """The layer of ``target_layer``, and why a later one with places is not read: "" where there is none."""
    why = unseen(model.net)
    if why is not None:
        raise Refused(*why)
    entry = network_facts(model, x)
    if entry.target is None:
        with at_rest(model), passes.uncounted(), rng.seeded(0, x[:1]), torch.no_grad():
            try:
                entry.target = _search_layer(model, x, entry.probe)
            except Refused as e:
                entry.target = e
        if entry.kin is not None and isinstance(entry.target, tuple) and _is_last(entry.probe, entry.target):
            entry.kin.target = entry.target
    if isinstance(entry.target, Refused):
        raise Refused(entry.target.what, entry.target.fix)
    return entry.target


def _is_last(probe: Probe, target: tuple[str, str]) -> bool:
    """Whether everything passes through the layer, and nothing with places comes later, whatever the weights."""
    names = [run.name for run in probe.runs]
    at = len(names) - 1 - names[::-1].index(target[0])
    if target[1] or probe.plain is None or not everything_through(probe.plain.several, probe.plain.values[at]):
        return False
    return all(run.pools or run.shape is None or prod(run.shape[2:]) == 1 for run in probe.runs[at + 1 :])


def level_of(model: Model, x: Tensor, reads: Tensor) -> str:
    """The last feature maps that all of some candidates of a detector pass through: the level that made the box.

    x (B, C, *S); reads: bool (N,), the candidates whose scores are asked for.  In a pyramid each level has its own,
    behind which there often is a head that they share.  Where the level cannot be told, because no module gives it or
    because the candidates come from several, it is the layer of ``target_layer``, through which everything passes.

    Refused: as in ``target_layer``.
    """
    why = unseen(model.net)
    if why is not None:
        raise Refused(*why)
    entry = network_facts(model, x)
    if entry.levels is None:
        with at_rest(model), passes.uncounted(), rng.seeded(0, x[:1]), torch.no_grad():
            entry.levels = _Search(model, x, entry.probe).levels()
    names, made_by = entry.levels
    used = set(made_by[reads.cpu()].tolist())
    return names[used.pop()] if len(used) == 1 and -1 not in used else target_layer(model, x)


def everything_passes(model: Model, x: Tensor, layer: str) -> bool:
    """Whether the scores depend on the picture through this layer alone, not past it as by one branch of a block.

    x (B, C, *S): pictures of that shape are asked about.  Measured: what the layer gives for two pictures is swapped,
    and then their scores must be.
    """
    with passes.uncounted(), rng.seeded(0, x[:1]), torch.no_grad():
        return _Search(model, x, None).everything_passes(layer)


def early(layer: str, later: str) -> str:
    """The sentence for a layer that is read although another one with places comes later."""
    return f"the layer that is read is {layer}: {later}; name another with layer="


def _search_layer(model: Model, x: Tensor, probe: Probe) -> tuple[str, str]:
    """The layer to read, and why a later one is not read."""
    runs = probe.runs
    last = max((i for i, s in enumerate(runs) if s.convolves and _spatial(s)), default=None)
    search = _Search(model, x, probe)
    after = runs[last or 0 :]
    if any(_attends(s) for s in after) or any(_spatial(s) and s.layout and s.layout.row for s in after):
        layer = search.last(range(last or 0, len(runs)), lambda s: s.layout is not None and not s.layout.first)
        if layer:
            return layer, search.later
        search.later = ""  # a module around it may be the one that is read
    if last is None:
        raise Refused(
            f"{model.source or 'the network'} has no convolution with more than one place",
            "class-activation methods need feature maps; name a layer that has them, layer=NAME, or use a gradient or "
            "perturbation method",
        )
    if any(_attends(s) for s in runs[last + 1 :]):
        raise Refused(
            f"after its last convolution ({runs[last].name}) {model.source or 'the network'} continues with attention",
            "name a layer with feature maps, layer=NAME, or use a gradient or perturbation method",
        )
    layout = runs[last].layout
    sides = layout.sides if layout else ()
    same = [i for i, s in enumerate(runs) if i < last or s.layout is None or s.layout.sides == sides]
    layer = search.last(same, lambda s: True)
    return (layer, search.later) if layer else (runs[last].name, "part of what the scores use bypasses every layer")


def _spatial(s: ModuleRun) -> bool:
    return s.layout is not None and s.layout.spatial


def _attends(s: ModuleRun) -> bool:
    return "attention" in s.kind.lower()


def _has_weights(net: nn.Module, layer: str) -> bool:
    return next(net.get_submodule(layer).parameters(), None) is not None


class _Search:
    """Goes through the layers from the last to the first, and notes what it passes over.

    later: why the last layer with places that was passed over is not the answer; "" where none was, or where a layer
    around it answers for it.  Of a run that is plain, what shows whatever the weights costs no pass.
    """

    def __init__(self, model: Model, x: Tensor, probe: Probe | None) -> None:
        runs: Sequence[ModuleRun] = probe.runs if probe is not None else ()
        self.model, self.runs, self.later = model, runs, ""
        self.run_counts = Counter(s.name for s in runs)
        self.plain = probe.plain if probe is not None else None
        self.values = {} if self.plain is None else {s.name: v for s, v in zip(runs, self.plain.values, strict=True)}
        self.passing: dict[str, bool] = {}
        noise = torch.rand((2, *x.shape[1:]), generator=torch.Generator().manual_seed(3))
        coarse = nn.functional.adaptive_avg_pool2d(noise[1:], 3) if x.dim() == 4 else noise[1:].mean(-1, keepdim=True)
        noise[1:] = nn.functional.interpolate(coarse, x.shape[2:]) if x.dim() == 4 else coarse
        self.pair = noise.to(x)
        self.scores = model(self.pair)

    def last(self, places: Iterable[int], wanted: Callable[[ModuleRun], bool]) -> str:
        """The last of these layers that can be read; "" where none can."""
        for s in (self.runs[i] for i in sorted(places, reverse=True)):
            if s.pools or not s.shape or len(s.shape) < 3 or (s.layout and not s.layout.spatial):
                continue
            if s.layout is None and sum(n > 1 for n in s.shape[1:]) < 2:  # pooled to one token
                continue
            if s.shape[0] != 1:
                if not self.later and self._passes_in_parts(s):
                    self._pass_over(s, "gives no places that can be located", whole=True)
            elif self.run_counts[s.name] > 1:
                self._pass_over(s, "runs several times")
            elif s.layout is None:
                if not self.later and self.everything_passes(s.name):
                    self._pass_over(s, "gives no places that can be located", whole=True)
            elif wanted(s) and self.everything_passes(s.name) and self._places_matter(s):
                return s.name
            elif not self.everything_passes(s.name):
                self._pass_over(s, "is one way of several to the scores")
        return ""

    def levels(self) -> tuple[tuple[str, ...], Tensor]:
        """Of every candidate of a detector (N,) the number of the last layer that it passes through; -1 without one.

        Candidates pass a layer whose values, swapped for two pictures, swap all that stands in their rows.
        """
        apart = (self.scores[0] - self.scores[1]).abs().amax(-1)
        names: list[str] = []
        made_by = torch.full(apart.shape, -1)
        for s in reversed(self.runs):
            if s.pools or s.layout is None or not s.layout.spatial or self.run_counts[s.name] > 1:
                continue
            swapped = self._swapped(s.name, lambda out: out.flip(0)).flip(0)
            off = (swapped - self.scores).abs().amax((0, 2))
            new = ((off <= _SAME * apart) & (apart > 0)).cpu() & (made_by < 0)
            if bool(new.any()):
                made_by[new] = len(names)
                names.append(s.name)
            if bool((made_by >= 0).all()):
                break
        return tuple(names), made_by

    def _pass_over(self, s: ModuleRun, why: str, *, whole: bool = False) -> None:
        """Note it, unless it learns nothing, or a module around it answers for it: one through which everything passes.

        whole: everything passes through this one, so that no other answers for it.
        """
        if self.later or not (s.learns or (whole and _has_weights(self.model.net, s.name))):
            return
        if whole or not self._answered_for(s):
            axes = s.shape or ()
            shape = " x ".join(map(str, axes[1:] if axes[0] == 1 else axes))
            of = "" if axes[0] == 1 else " for three pictures"
            self.later = f"{s.name}, which comes later ({s.kind}, {shape}{of}), {why}"

    def _answered_for(self, s: ModuleRun) -> bool:
        parts = s.name.split(".")
        around = [name for k in range(1, len(parts)) if self.run_counts[name := ".".join(parts[:k])] == 1]
        return any(self.everything_passes(name) for name in around)

    def _passes_in_parts(self, s: ModuleRun) -> bool:
        """Whether everything passes through a layer whose first axis is not that of the pictures.

        They are in another one, as in (N, B, C), or each of them is in several parts, as windows are.
        """
        three, two = s.shape or (), len(self.pair)
        ways: list[Swap] = [lambda out, axis=i: out.flip(axis) for i, n in enumerate(three) if n == 3]  # type: ignore[misc]
        if three[0] % 3 == 0:
            ways.append(lambda out: out.reshape(two, -1, *out.shape[1:]).flip(0).flatten(0, 1))
        return self.run_counts[s.name] == 1 and any(self._alike(self._swapped(s.name, way).flip(0)) for way in ways)

    def everything_passes(self, layer: str) -> bool:
        """Whether the scores depend on the picture through this layer alone: its values, swapped, swap the scores."""
        if layer not in self.passing:
            known = self._passes_whatever_the_weights(layer)
            if known is None:
                known = self._alike(self._swapped(layer, lambda out: out.flip(0)).flip(0))
            self.passing[layer] = known
        return self.passing[layer]

    def _passes_whatever_the_weights(self, layer: str) -> bool | None:
        """The same, as the run shows it, or another layer that was asked about before; None: only a pass can tell."""
        value = self.values.get(layer, -1)
        if self.plain is None or value < 0 or self.run_counts[layer] > 1:
            return None
        if everything_through(self.plain.several, value):
            return True
        for other, passes_there in self.passing.items():
            at = self.values.get(other, -1)
            if at >= 0 and self.run_counts[other] == 1 and always_agree(self.plain.several, at, value):
                return passes_there
        return None

    def _places_matter(self, s: ModuleRun) -> bool:
        """Whether what stands at the places changes the scores, not only what stands at extra tokens."""
        layout = s.layout
        if layout is None or not layout.before + layout.after:
            return True
        if self.plain is not None and layout.row and self.run_counts[s.name] == 1:
            sizes = layout.before, prod(layout.sides), layout.after
            if reads_no_place(self.plain.several, self.values[s.name], *sizes):
                return False

        def swap(out: Tensor) -> Tensor:
            maps, back = as_maps(out, layout)
            return back(maps.flip(0))

        return not self._alike(self._swapped(s.name, swap))

    def _alike(self, scores: Tensor) -> bool:
        apart = float((self.scores[0] - self.scores[1]).abs().max())
        return float((scores - self.scores).abs().max()) <= _SAME * apart

    def _swapped(self, layer: str, swap: Swap) -> Tensor:
        def hook(_module: nn.Module, _inputs: object, out: object) -> object:
            return swap(out) if isinstance(out, Tensor) else out

        handle = self.model.net.get_submodule(layer).register_forward_hook(hook)
        try:
            return self.model(self.pair)
        finally:
            handle.remove()
