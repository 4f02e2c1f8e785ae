"""Layers inside the network: their outputs and the gradients there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core import passes, rng
from clearsight.core.contents import settled_contents
from clearsight.core.forwards import in_script
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import NoGradient, Refused, nearest
from clearsight.internals.finite_differences import (
    DOUBT,
    Slopes,
    gradient,
    gradient_error,
    look_closer,
    measure_changes,
    rounding,
    step_length,
)
from clearsight.internals.kept_graph import held, is_kept
from clearsight.internals.mixing import mixed, random_mix
from clearsight.internals.places import Layout, as_maps
from clearsight.internals.probe import network_facts
from clearsight.internals.target_layer import level_of, target_layer

SMALL_SIDE = 28  # places, up to which two products are the faster way to enlarge a map (measured, torch 2.14)
_ANOTHER = "name another with layer="


def module_at(model: Model, layer: str) -> nn.Module:
    """The module of that name, on which hooks can be; refused where torch.jit made it."""
    why = in_script(model.net, layer)
    if why is not None:
        raise Refused(*why)
    return model.net.get_submodule(layer)


def find_layer(model: Model, x: Tensor, layer: str, reads: Tensor | None = None) -> str:
    """The layer that the caller named, checked; or, for "auto", the one found by ``target_layer``.

    reads: bool (N,), the candidates of a detector that are asked about: then "auto" is the level that made them.
    """
    if layer == "auto":
        return target_layer(model, x) if reads is None else level_of(model, x, reads)
    names = settled_contents(model.net).structure.first_names
    if not layer or layer not in names:
        raise Refused(f"the network has no layer {layer!r}", nearest(layer, [*filter(None, names)]))
    return layer


def layout_of(model: Model, x: Tensor, layer: str) -> Layout:
    """How the output of a layer holds its places, for pictures shaped like x (B, C, *S).

    Refused: a layer that gives no feature maps, that runs more than once inside, or not at all.
    """
    module_at(model, layer)
    runs = [s for s in network_facts(model, x).probe.runs if s.name == layer]
    if not runs:
        raise Refused(f"layer {layer} is not run in a forward pass", _ANOTHER)
    if len(runs) > 1:
        raise Refused(f"layer {layer} runs more than once in a forward pass", _ANOTHER)
    shape, layout = runs[0].shape, runs[0].layout
    if shape is None:
        raise Refused(f"layer {layer} gives a tuple or a dict, not a tensor", _ANOTHER)
    if layout is None:
        raise Refused(f"layer {layer} gives {shape}, not feature maps whose places can be located", _ANOTHER)
    return layout


@contextmanager
def cut_at(model: Model, x: Tensor, layer: str, *, grad: bool) -> Iterator[list[Tensor]]:
    """Capture the layer's output as feature maps in the list that is yielded; with grad, the graph begins there.

    x (B, C, *S): pictures shaped like those that go through inside.  What runs after the layer works on a copy, so that
    an in-place ReLU behind it cannot change what was captured.

    Refused: as in ``layout_of``.
    """
    maps_of_layer: list[Tensor] = []
    places = layout_of(model, x, layer)

    def hook(_module: nn.Module, _inputs: Any, out: Any) -> Tensor:
        if not isinstance(out, Tensor):
            raise Refused(f"layer {layer} gives a {type(out).__name__}, not a tensor", _ANOTHER)
        if maps_of_layer:
            raise Refused(f"layer {layer} runs more than once in a forward pass", _ANOTHER)
        maps, back = as_maps(held(out), places)
        maps_of_layer.append(maps if is_kept() else maps.requires_grad_(grad))
        return back(maps_of_layer[0].clone())

    handle = module_at(model, layer).register_forward_hook(hook)
    try:
        yield maps_of_layer
    finally:
        handle.remove()
    if not maps_of_layer:
        raise Refused(f"layer {layer} is not run in a forward pass", _ANOTHER)


def activations(model: Model, x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """The output of a layer, A (B, K, *s), and the logits (B, classes), without a graph but in `keeping_graph`."""
    with torch.set_grad_enabled(is_kept()), cut_at(model, x, layer, grad=False) as caught:
        logits = model(x)
    return caught[0], logits


def activations_and_gradients(model: Model, x: Tensor, target: Target, layer: str) -> tuple[Tensor, Tensor]:
    """The output of a layer, A (B, K, *s), and the target's gradient there, G = d target / d A, of the same shape.

    The graph is cut at the layer: below it nothing is kept, so frozen networks work and it costs little over a forward.
    Inside `keeping_graph` it is not cut, and both are differentiable in the weights.
    """
    layer = find_layer(model, x, layer)
    with cut_at(model, x, layer, grad=True) as caught, torch.enable_grad():
        score = target(model(held(x)))
    (a,) = caught
    (g,) = gradients(score, a, f"layer {layer}")
    return held(a), g


def flowing(score: Tensor, where: str = "the pixels") -> Tensor:
    """The score itself.  Raises NoGradient if no gradient flows back from it."""
    if not score.requires_grad:
        raise NoGradient(
            f"no gradient flows back to {where}",
            "part of the network's forward runs under torch.no_grad(), detaches or goes through NumPy",
            "remove that, name a later layer with layer=, or use a perturbation method such as occlusion",
        )
    return score


def gradients(score: Tensor, at: Tensor, where: str = "the pixels") -> tuple[Tensor]:
    """d (sum of score) / d at.  Raises NoGradient, with the reason, if there is none."""
    with torch.enable_grad():
        total = flowing(score, where)
        total = total.sum() if total.dim() else total  # given ones for each picture, torch would import SymPy
    (g,) = torch.autograd.grad(total, at, allow_unused=True, create_graph=is_kept())
    if g is None:
        raise NoGradient(
            f"the target does not depend on {where}",
            "the forward uses no value from there, or only through an operation without a gradient (a quantised layer, "
            "rounding to integers)",
            "use another layer or method",
        )
    return (g,)


def enlarge(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Maps of a layer (B, *s) -> the picture's size (B, *S), linearly between the places' centres."""
    if maps.dim() == 3 and max(maps.shape[1:]) <= SMALL_SIDE and maps.is_cpu and maps.dtype == torch.float32:
        down, across = (_between(*sides).expand(len(maps), -1, -1) for sides in zip(maps.shape[1:], size, strict=True))
        return down @ maps @ across.mT
    return _interpolated(maps, tuple(size))


@lru_cache(maxsize=64)
def _between(places: int, points: int) -> Tensor:
    """How much each of some places in a row counts at each of some points between their centres: (points, places)."""
    with torch.inference_mode(False), torch.no_grad():
        return _interpolated(torch.eye(places, dtype=torch.float32, device="cpu"), (points,)).T.contiguous()


def _interpolated(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return nn.functional.interpolate(maps[:, None], size, mode=mode, align_corners=False)[:, 0]


def layer_slopes(model: Model, x: Tensor, layer: str) -> Slopes:
    """Whether the gradient at a layer is that of the scores, for pictures shaped like x (B, C, *S).

    For a network whose gradient at the pixels is not: what runs behind the layer may be whole.  Measured once for each
    layer, on noise, along directions of +-1 times the root mean square of what stands there.
    """
    entry = network_facts(model, x)
    if layer not in entry.layers:
        with passes.uncounted(), rng.seeded(0, x[:1]):
            entry.layers[layer] = _layer_slopes(model, x, layer)
    return entry.layers[layer]


def _layer_slopes(model: Model, x: Tensor, layer: str) -> Slopes:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand((1, *x.shape[1:]), generator=generator).to(x)
    mix = random_mix(model, start, generator)
    places = layout_of(model, x, layer)
    maps, scores = activations(model, start, layer)
    unit = maps.double().square().mean().sqrt().clamp_min(1e-30).to(maps)

    def score(values: Tensor) -> Tensor:
        def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
            return as_maps(out, places)[1]((values * unit).to(out))

        handle = module_at(model, layer).register_forward_hook(hook)
        try:
            return mixed(model(start.expand(len(values), *start.shape[1:])), mix)
        finally:
            handle.remove()

    start_maps = maps / unit
    directions = (torch.randint(0, 2, (3, *maps.shape[1:]), generator=generator) * 2 - 1).to(start_maps)
    value, slope = gradient(score, start_maps)
    if slope is None:
        return Slopes("none")
    rounding_error = rounding(scores, model.dtype) * float(mix.norm())
    with torch.no_grad():
        values = torch.cat([value, score(start_maps + step_length(slope, rounding_error) * directions[:2])])
    error = gradient_error(
        measure_changes(score, start_maps, slope, values, directions, rounding_error), rounding_error
    )
    if error is not None and error <= DOUBT:
        return Slopes("right", error)
    return look_closer(score, start_maps, None, model.dtype)
