"""Removing pixels, or putting them back, in the order of a map."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import pairs
from clearsight.core.classifier import Classifier
from clearsight.core.remembered import digest, once
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.perturbation.removal import Removal, instead, taken


def ranks(maps: Tensor) -> Tensor:
    """maps (B, *S) -> (B, *S) int64: 0 for the most relevant place; ties are broken by a seeded draw."""
    flat = maps.flatten(1)
    shuffled = rng.uniform(flat).argsort(dim=1)
    order = shuffled.gather(1, flat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    places = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, places).view(maps.shape)


def curve(
    model: Classifier, x: Tensor, target: Target, maps: Tensor, *, steps: int, fill: Removal, insert: bool
) -> Tensor:
    """The target after 0, 1, ... steps: (B, steps + 1).  Each step takes, or puts back, the same count of places.

    x (B, C, *S), maps (B, *S).  Most relevant first; counts are exact.
    """
    if steps < 1:
        raise Refused(f"steps must be at least 1, not {steps}")
    rank, nothing = ranks(maps), _nothing(model, x, fill)
    places = rank[0].numel()
    counts = torch.tensor([round(k * places / steps) for k in range(steps + 1)], device=x.device)
    values = x.new_empty(len(x), steps + 1)
    with torch.no_grad():
        if nothing is not None:
            for at, end in ((0, nothing if insert else x), (steps, x if insert else nothing)):
                values[:, at] = target(_logits_of(model, end.expand_as(x)))
        inner = torch.arange(steps + 1) if nothing is None else torch.arange(1, steps)
        for rows, i in pairs(len(x), len(inner)):
            k = inner[i]
            first = rank[rows] < counts[k].view(-1, *[1] * (rank.dim() - 1))
            values[rows, k] = target[rows](model(taken(x, first != insert, nothing, rows)))
    return values


def _nothing(model: Classifier, x: Tensor, fill: Removal) -> Tensor | None:
    """What pixels become, which is the same for every map."""
    return once(model.net, ("nothing", fill, model.preprocess, digest(x)), lambda: instead(model, x, fill))


def _logits_of(model: Classifier, x: Tensor) -> Tensor:
    """Logits (B, K) of the ends of a curve, which are the same for every map."""
    return once(model.net, ("logits", model.output, model.scores, model.preprocess, digest(x)), lambda: model(x))


def area(values: Tensor) -> Tensor:
    """The area under curves (B, n) over [0, 1], by trapezoids -> (B,)."""
    return torch.trapezoid(values, dx=1 / (values.shape[1] - 1), dim=1)
