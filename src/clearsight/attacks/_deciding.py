"""What attacks that see only the answer have in common: where they start, and how they go back to the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.blackbox import BlackBox
from clearsight.core.norms import Norm, perturbation_norm, project

CELLS = (0, 2, 1, 4, 3, 8)  # along each axis of the patterns that are tried one after another; 0: noise


def start(box: BlackBox, x: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """A version of each picture x (B, C, *S) that meets the goal -> these (B, C, *S), and which have one (n,).

    Asked about in turn: the pictures starts (N, C, *S) of the attacker's own, the nearest first; even noise; patterns
    of 0 and 1 in blocks of several sizes; and, every second round, the same laid over a random part of the picture.
    Half of the queries at most, at least one, go into it.
    """
    z, rows, have = x.clone(), torch.arange(len(x), device=x.device), torch.zeros(len(x), dtype=torch.bool)
    own = x[:0] if starts is None else starts
    far = torch.cdist(x.flatten(1), own.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    order = far.argsort(dim=1, stable=True)
    for k in range(max(box.queries // 2, 1)):
        j = k - len(own)
        if j < 0:
            tried = own[order[rows, k]]
        else:
            tried = _pattern(x[rows], rows, CELLS[j % len(CELLS)], over=bool(j // len(CELLS) % 2))
        met = box.met(tried, rows)
        z[rows[met]], have[rows[met].cpu()] = tried[met], True
        rows = rows[~met]
        if not len(rows):
            break
    return z, have.nonzero()[:, 0].to(x.device)


def _pattern(x: Tensor, rows: Tensor, cells: int, *, over: bool) -> Tensor:
    if not cells:
        return rng.uniform(x, rows)
    blocks = _blocks(x, rows, cells)
    return torch.where(_blocks(x[:, :1], rows, cells) > 0, blocks, x) if over else blocks


def _blocks(x: Tensor, rows: Tensor, cells: int) -> Tensor:
    """0 or 1 by chance in each of the cells, so many along each axis: (n, C, *S), as x."""
    sides = [min(cells, n) for n in x.shape[2:]]
    z = rng.uniform(x.new_empty(len(x), x.shape[1], *sides), rows).round()
    for axis, (few, many) in enumerate(zip(sides, x.shape[2:], strict=True), 2):
        z = z.index_select(axis, torch.arange(many, device=x.device) * few // many)
    return z


def nearer(box: BlackBox, x: Tensor, z: Tensor, rows: Tensor, norm: Norm, tolerance: float) -> Tensor:
    """Versions z (B, C, *S) that meet the goal, for the pictures rows (n,) brought near to where they no longer do.

    The way from z to x is halved until the distance is known to this share of it: of L2 along the straight line, of
    Linf by cutting z to ever smaller cubes around x.
    """
    z, rows = z.clone(), rows.clone()
    far = z[rows]
    high = perturbation_norm(far - x[rows], norm)
    low, close = torch.zeros_like(high), high * tolerance
    while True:
        on = (high - low > close) & (box.left(rows) > 0).to(x.device)
        rows, far, low, high, close = rows[on], far[on], low[on], high[on], close[on]
        if not len(rows):
            return z
        middle = (low + high) / 2
        tried = project(far, x[rows], middle, norm)
        met = box.met(tried, rows)
        z[rows[met]] = tried[met]
        low, high = torch.where(met, low, middle), torch.where(met, middle, high)
