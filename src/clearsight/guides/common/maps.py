"""Maps of the answer that should be given, as training can change them, and annotations at the places of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.core import diagnostics, rng
from clearsight.core.catalogue import parse
from clearsight.core.targets import ClassScore
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.internals.kept_graph import keeping_graph, must_learn
from clearsight.internals.layers import activations_and_gradients
from clearsight.internals.twice_differentiable import twice_differentiable

TINY = 1e-12  # a sum of attributions below which there is none


def answer(y: Tensor) -> ClassScore:
    """The logit of the class that each picture has most of: y (B, K) -> a target."""
    return ClassScore(y.argmax(1))


def learnable_maps(step: TrainingStep, x: Tensor, y: Tensor, explainer: str) -> Tensor:
    """An explainer's maps (B, *S) of the right answers, differentiable in the weights.

    What the explainer draws follows from how torch's generator was seeded for this step.  A pass over x is that of the
    loss of the labels; others leave nothing in BatchNorm.

    Refused: explainers whose map has no gradient in the weights, and those that do not exist.
    """
    call = parse(explainer, "explainers")
    seed = torch.initial_seed() & (2**63 - 1)
    with (
        keeping_graph(),
        twice_differentiable(),
        diagnostics.silent(),
        rng.seeded(seed, x, call.method.name),
    ):
        must_learn(call)
        maps = call.method(step.sharing(x), x, answer(y), **call.options)
    if not isinstance(maps, Tensor) or maps.shape != x[:, 0].shape:
        raise Refused(f"explainer {call.method.name} must return one map (B, *S) for each picture")
    return maps


def class_activation(step: TrainingStep, x: Tensor, y: Tensor, layer: str) -> Tensor:
    """Grad-CAM (B, *s) at the places of a layer, not enlarged, from the pass of the loss of the labels.

    Its graph goes twice through what stands behind the layer, and once through what stands before it.
    """
    with keeping_graph():
        a, g = activations_and_gradients(step.sharing(x), x, answer(y), layer)
    return (g.mean(tuple(range(2, a.dim())), keepdim=True) * a).sum(1).relu()


def at_places(inside: Tensor, size: torch.Size) -> Tensor:
    """The share of each place of a map that lies inside: inside (B, 1, *S) -> (B, *s)."""
    pool = (nn.functional.adaptive_avg_pool1d, nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_avg_pool3d)
    shares: Tensor = pool[len(size) - 1](inside, tuple(size))  # type: ignore[arg-type]
    return shares[:, 0]


def of_largest(maps: Tensor) -> Tensor:
    """Maps (B, *s), >= 0, each as a share of its largest value; 0 where there is none."""
    most = maps.flatten(1).amax(1).clamp_min(TINY)
    return maps / most.view(-1, *[1] * (maps.dim() - 1))


def from_zero(name: str, **numbers: float) -> None:
    """Refuse numbers below 0."""
    for option, value in numbers.items():
        if not 0 <= value < float("inf"):
            raise Refused(f"{name}({option}={value:g}): a number from 0")
