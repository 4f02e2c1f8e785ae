"""Gradients held against finite differences in double precision: independent of internals.finite_differences.

What methods rest on is computed as they do, in the network's own precision.  What is right is measured by scores alone,
of a copy of the network in float64, a tiny step ahead and a tiny step back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.targets import ClassScore
from clearsight.explainers.common.gradient import many_passes, pixel_gradients
from clearsight.internals.layers import activations_and_gradients, layout_of
from clearsight.internals.places import as_maps
from clearsight.runner.run import explain

TARGET = ClassScore(1)
# of what directions are made of: a kink may lie within one, and a branch scaled by 1e-6, as ConvNeXt's, be lost in the
# rounding of another; a gradient that is wrong is so by all
STEPS = (1e-7, 1e-9, 1e-4)
ENOUGH = 1e-5  # a difference that needs no other step
BLUR = 1e-3  # of a layer's values, which are about 1
DIRECTIONS = 6  # random ones; with them goes the gradient's own

Score = Callable[[Tensor], Tensor]  # steps (n, ...) from where the gradient was taken -> scores (n,) in float64


def in_double(model: Classifier) -> Classifier:
    """A copy of the model in double precision."""
    return replace(model, net=copy.deepcopy(model.net).double())


def apart(gradient: Tensor, score: Score, unit: float = 1.0) -> float:
    """How far a gradient (...) is from finite differences, as a share of them.

    The larger of two: along random directions all together, and along the gradient's own.
    unit: the size of what is changed, in which steps are counted.
    """
    g = gradient.double()
    assert bool(g.isfinite().all())
    assert bool(g.any())
    ways = torch.randn((DIRECTIONS, *g.shape), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ways = torch.cat([ways, (g / g.square().mean().sqrt())[None]])
    best = float("inf")
    for step in STEPS:
        best = min(best, _off(g, score, ways, step * unit))
        if best < ENOUGH:
            break
    return best


def _off(g: Tensor, score: Score, ways: Tensor, step: float) -> float:
    with torch.no_grad():
        ends = score(torch.cat([step * ways, -step * ways]))
    rise = (ends[: len(ways)] - ends[len(ways) :]) / (2 * step)
    off = rise - (ways * g).flatten(1).sum(1)
    return max(float(off[:-1].norm() / rise[:-1].norm()), float(off[-1].abs() / rise[-1].abs()))


def at_pixels(model: Classifier, x: Tensor, fold: bool = True) -> dict[str, float]:
    """How far the maps of methods that are the gradient at the pixels x (1, C, H, W) are from finite differences.

    A map has one number for each pixel: directions are the same in all channels; for gradient-x-input times the pixel.
    fold: also the gradient of methods that take hundreds of it, for which BatchNorm is folded into convolutions.
    """
    double, start = in_double(model), x.double()

    def score(way: Callable[[Tensor], Tensor]) -> Score:
        return lambda d: TARGET(double(start + way(d[:, None])))

    def taken(method: str) -> Tensor:
        return explain(model, x, method, TARGET).maps[0]

    found = {
        "saliency": apart(taken("saliency(absolute=false)"), score(lambda d: d.expand(-1, *x.shape[1:]))),
        "gradient-x-input": apart(taken("gradient-x-input"), score(lambda d: d * start)),
    }
    if fold:
        with model.undisturbed(), many_passes(model, x, 10**6):
            folded = pixel_gradients(model, x, TARGET)[0]
        found["folded"] = apart(folded, lambda d: TARGET(double(start + d)))
    return found


def exact(model: Classifier, x: Tensor, layers: Sequence[str]) -> float:
    """How far all of this is from finite differences where the gradient, too, is taken in double precision."""
    double, z = in_double(model), x.double()
    return max(*at_pixels(double, z, fold=False).values(), *(at_layer(double, z, at) for at in layers))


def at_layer(model: Classifier, x: Tensor, layer: str) -> float:
    """How far the gradient at a layer, that class-activation methods rest on, is from finite differences.

    With a little noise on what the layer gives: where values are equal, as a ReLU's zeros are to the max-pool behind
    it, there is no gradient to be right.
    """
    with blurred(model, layer), model.undisturbed():
        a, g = activations_and_gradients(model, x, TARGET, layer)
        layout = layout_of(model, x, layer)
    double, start = in_double(model), x.double()
    places: list[Tensor] = []  # where in what the layer gives each value of the maps stands

    def score(steps: Tensor) -> Tensor:
        def hook(_module: Any, _args: Any, out: Tensor) -> Tensor:
            if not places:
                numbers = torch.arange(out[0].numel()).view(1, *out.shape[1:])
                places.append(as_maps(numbers, layout)[0].flatten())
                torch.testing.assert_close(out[0].flatten()[places[0]], a.flatten().double(), rtol=1e-2, atol=1e-3)
            return out.flatten(1).index_add(1, places[0], steps.flatten(1)).view_as(out)

        with blurred(double, layer):
            handle = double.net.get_submodule(layer).register_forward_hook(hook)
            try:
                return TARGET(double(start.expand(len(steps), *x.shape[1:])))
            finally:
                handle.remove()

    return apart(g[0], score, float(a.square().mean().sqrt()))


@contextmanager
def blurred(model: Classifier, layer: str) -> Iterator[None]:
    """Inside, the layer's values are each shifted by a fixed number of its own, at most BLUR."""

    def hook(_module: Any, _args: Any, out: Tensor) -> Tensor:
        noise = torch.rand(out.shape[1:], generator=torch.Generator().manual_seed(5)).to(out)
        return out + BLUR * noise

    handle = model.net.get_submodule(layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def residual_off(model: Classifier, x: Tensor, steps: int) -> float:
    """How far what integrated-gradients notes that its map misses is from what it misses of the target's change.

    As a share of the largest score.  The change is measured in double precision.
    """
    found = explain(model, x, f"integrated-gradients(steps={steps})", TARGET)
    double = in_double(model)
    with torch.no_grad():
        scores = double(torch.cat([x, torch.zeros_like(x)]).double())
    change = TARGET(scores[:1]) - TARGET(scores[1:])
    missing = found.maps.double().sum() - change
    return float((found.diagnostics["completeness residual"] - missing).abs() / scores.abs().max())
