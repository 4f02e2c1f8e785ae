"""Where a layer's places are, told by a small spot that is moved over a picture: independent of internals.places.

The spot stands at 5 x 5 points, once bright and once dark.  The centre of gravity of what it changes in a layer's maps
must go down where the spot goes down, and right where it goes right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.internals.places import Layout, as_maps
from clearsight.internals.probe import ModuleRun

POINTS = 5  # along each axis
CLEAR = 0.5  # rank correlation of the centre of gravity with the spot from which on it is said to follow
APART = 0.25  # by so much more than down with right, and right with down
EXTRA = 16  # tokens that stand for no place, at most

Reader = Callable[[Tensor, Layout], Tensor]  # what a layer gives, and its layout -> maps (B, C, h, w)


def read(out: Tensor, layout: Layout) -> Tensor:
    """As the package reads it."""
    return as_maps(out, layout)[0]


def moved(x: Tensor) -> tuple[Tensor, Tensor]:
    """The picture x (1, C, H, W), and the same with a spot at each point (2 * 25, C, H, W); the points (25, 2)."""
    h, w = x.shape[2:]
    at = [(i + 0.5) / POINTS for i in range(POINTS)]
    points = torch.tensor([(r, c) for r in at for c in at])
    rows, columns = (torch.arange(n) + 0.5 for n in (h, w))
    down = (rows - points[:, :1] * h)[:, :, None]
    right = (columns - points[:, 1:] * w)[:, None, :]
    spot = (-(down**2 + right**2) / (2 * (min(h, w) / 20) ** 2)).exp()[:, None]
    return torch.cat([x, x + 0.4 * spot, x - 0.4 * spot]), points


def follows(maps: Tensor, points: Tensor) -> float:
    """How well maps (1 + 2 * 25, C, h, w) follow the spot: the smaller of both axes' rank correlations.

    Below CLEAR also where what goes down goes with what goes right nearly as well.  An axis of one place says nothing.
    """
    change = (maps[1:] - maps[:1]).double().abs().sum(1)
    change = change[: len(points)] + change[len(points) :]
    total = change.sum((1, 2))
    if not bool((total > 0).all()) or not bool(total.isfinite().all()):
        return 0.0
    h, w = change.shape[1:]
    down = (change.sum(2) @ torch.arange(h).double()) / total
    right = (change.sum(1) @ torch.arange(w).double()) / total
    found = []
    for centre, sides, own in ((down, h, 0), (right, w, 1)):
        if sides > 1:
            along, across = (_alike(centre, points[:, axis]) for axis in (own, 1 - own))
            found.append(along if along >= abs(across) + APART else 0.0)
    return min(found, default=0.0)


def _alike(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation; what differs by rounding alone is equal."""
    ranks = [rankdata(np.round(t.double().numpy(), 9)) for t in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1]) if min(r.std() for r in ranks) > 0 else 0.0


def otherwise(out: Tensor) -> Iterator[Tensor]:
    """Every way to read what a layer gives (B, ...) as maps: any axis as channels, any two as places, any grid.

    Without those of one row or column, which numbers in a row follow by chance.
    """
    if out.dim() == 4:
        for maps in (out.movedim(axis, 1) for axis in (1, 2, 3)):
            if min(maps.shape[2:]) > 1:
                yield from (maps, maps.mT)
    if out.dim() == 3:
        for tokens in (out, out.mT):
            n = tokens.shape[1]
            for h in range(2, n // 2 + 1):
                for w in range(2, min(n // h, 3 * h) + 1):
                    if 3 * w >= h and n - h * w <= EXTRA:
                        for before in range(n - h * w + 1):
                            yield tokens[:, before : before + h * w].mT.reshape(len(out), -1, h, w)


def verdict(out: Tensor, layout: Layout | None, points: Tensor, reader: Reader = read) -> str:
    """What the spot says of a layer that gives out (1 + 2 * 25, ...) and is read by this layout.

    "right"; "wrong" where another way to read it follows the spot and this one does not; "untold" where none does, as
    where every place sees the whole picture; "not read", which is refused by name, where there is no layout; "" for
    what has no two places.
    """
    if out.dim() < 3 or not out.is_floating_point():
        return ""
    if layout is None:
        return "not read" if out.dim() > 2 and _elsewhere(out, points) else ""
    if layout.spatial and follows(reader(out, layout), points) >= CLEAR:
        return "right"
    if _elsewhere(out, points):
        return "wrong"
    return "untold" if layout.spatial else ""


def _elsewhere(out: Tensor, points: Tensor) -> bool:
    return any(follows(maps, points) >= CLEAR for maps in otherwise(out))


def verdicts(model: Classifier, x: Tensor, seen: Sequence[ModuleRun], reader: Reader = read) -> list[str | None]:
    """What a picture x (1, C, H, W) says of each module run; None where it gives no values for each picture.

    seen: the runs with their layouts, as the package tells them, in the order in which modules finish.
    """
    pictures, points = moved(x)
    found: list[str | None] = []
    left = list(seen)

    def note(name: str, out: Any) -> None:
        run = left.pop(0)
        assert run.name == name
        if isinstance(out, Tensor) and len(out) == len(pictures):
            found.append(verdict(out, run.layout, points, reader))
        else:
            assert run.layout is None
            found.append(None)

    named = [(n, m) for n, m in model.net.named_modules() if n]
    handles = [m.register_forward_hook(lambda _m, _a, out, n=n: note(n, out)) for n, m in named]
    try:
        with torch.no_grad():
            model(pictures)
    finally:
        for h in handles:
            h.remove()
    assert not left
    return found


def one_layer(model: Classifier, x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """What one layer gives for the picture and the same with the spot, (1 + 2 * 25, ...), and the points (25, 2)."""
    pictures, points = moved(x)
    kept: list[Tensor] = []
    module: nn.Module = model.net.get_submodule(layer)
    handle = module.register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    try:
        with torch.no_grad():
            model(pictures)
    finally:
        handle.remove()
    return kept[0], points
