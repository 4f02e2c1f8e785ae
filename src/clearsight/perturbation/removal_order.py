"""Removing pixels, or putting them back, in the order of a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import pairs
from clearsight.core.model import Model
from clearsight.core.places import occupied
from clearsight.core.remembered import digest, once
from clearsight.core.sorting import ascending, descending
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.perturbation.removal import Removal, instead, taken


def ranks(maps: Tensor, inside: Tensor | None = None) -> Tensor:
    """maps (B, *S) -> (B, *S) int64: 0 for the most relevant place; ties are broken by a seeded draw.

    inside: bool (B, *S), places that come before all others; None for all of them.
    """
    flat = (maps if inside is None else maps.masked_fill(~inside, -torch.inf)).flatten(1)
    draws = rng.uniform(flat)
    each = [_ranks_of(*_as_arrays(row, drawn)) for row, drawn in zip(flat, draws, strict=True)]
    return torch.from_numpy(np.stack(each)).to(maps.device).view(maps.shape)


def _as_arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """The values (N,) of each tensor as NumPy has them, in float32 at least."""
    return [(t.float() if t.element_size() < 4 else t).detach().cpu().numpy() for t in tensors]


def _ranks_of(values: NDArray[Any], draws: NDArray[Any]) -> NDArray[np.int64]:
    """The ranks (N,) of places with these values (N,), 0 for the highest; of equal ones the lower draw comes first."""
    shuffled = ascending(draws)
    ranks = np.empty(len(values), np.int64)
    ranks[shuffled[descending(values[shuffled])]] = np.arange(len(values))
    return ranks


def portions(x: Tensor, inside: Tensor | None, parts: int) -> Tensor:
    """(B, parts + 1) how many places are 0, 1, ... parts of equal portions of those inside (B, *S); None for all."""
    places = [x[0, 0].numel()] * len(x) if inside is None else inside.flatten(1).sum(1).tolist()
    counts = {n: [round(k * n / parts) for k in range(parts + 1)] for n in {*places}}
    return torch.tensor([counts[n] for n in places], device=x.device)


def curve(model: Model, x: Tensor, target: Target, maps: Tensor, *, steps: int, fill: Removal, insert: bool) -> Tensor:
    """The target after 0, 1, ... steps: (B, steps + 1).  Each step takes, or puts back, the same count of places.

    x (B, C, *S), maps (B, *S).  Most relevant first; counts are exact.  Of a text the places are its characters.
    """
    if steps < 1:
        raise Refused(f"steps must be at least 1, not {steps}")
    inside = occupied(model, x)
    rank, nothing = ranks(maps, inside), _nothing(model, x, fill)
    counts = portions(x, inside, steps)
    values = x.new_empty(len(x), steps + 1)
    with torch.no_grad():
        if nothing is not None:
            for at, end in ((0, nothing if insert else x), (steps, x if insert else nothing)):
                values[:, at] = target(_logits_of(model, end.expand_as(x)))
        inner = torch.arange(steps + 1) if nothing is None else torch.arange(1, steps)
        for rows, i in pairs(len(x), len(inner)):
            k = inner[i]
            first = rank[rows] < counts[rows, k].view(-1, *[1] * (rank.dim() - 1))
            values[rows, k] = target[rows](model(taken(x, first != insert, nothing, rows)))
    return values


def _nothing(model: Model, x: Tensor, fill: Removal) -> Tensor | None:
    """What pixels become, which is the same for every map."""
    if instead(model, x[:1], fill) is None:
        return None
    return _once_each(model, ("nothing", fill, model.preprocess), x, lambda some: _filled(model, some, fill))


def _filled(model: Model, x: Tensor, fill: Removal) -> Tensor:
    nothing = instead(model, x, fill)
    assert nothing is not None
    return nothing


def _logits_of(model: Model, x: Tensor) -> Tensor:
    """Logits (B, K) of the ends of a curve, which are the same for every map."""
    return _once_each(model, ("logits", model.reading, model.preprocess), x, model)


def _once_each(model: Model, key: tuple[object, ...], x: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
    """What make gives for pictures x (B, ...), row by row: made once for those that are the same, here and before."""
    known: dict[bytes, Tensor] = once(model.net, key, dict)
    names = [digest(picture) for picture in x]
    missing = {name: i for i, name in enumerate(names) if name not in known}
    if missing:
        known |= zip(missing, make(x[[*missing.values()]]), strict=True)
    return torch.stack([known[name] for name in names])


def area(values: Tensor) -> Tensor:
    """The area under curves (B, n) over [0, 1], by trapezoids -> (B,)."""
    return torch.trapezoid(values, dx=1 / (values.shape[1] - 1), dim=1)
