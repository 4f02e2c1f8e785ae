"""What attacks by labels alone share: how they find a start, and how they go back towards the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.blackbox import BlackBox
from clearsight.core.norms import Norm, perturbation_norm, project

CELLS = (0, 2, 1, 4, 3, 8)  # blocks along each axis of the patterns that are tried in turn; 0: noise


def start(box: BlackBox, x: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Find a version of each picture x (B, C, *S) that meets the goal.

    Returns the versions (B, C, *S), and the rows (n,) of the pictures for which one was found.  In turn it asks about
    the attacker's own pictures starts (N, C, *S), the nearest first; uniform noise; patterns of 0 and 1 in blocks of
    several sizes; and, every second round, such patterns laid over a random part of the picture.  This takes at least
    one query and at most half of them.
    """
    x_adv, rows, have = x.clone(), torch.arange(len(x), device=x.device), torch.zeros(len(x), dtype=torch.bool)
    candidates = x[:0] if starts is None else starts
    far = torch.cdist(x.flatten(1), candidates.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    order = far.argsort(dim=1, stable=True)
    for k in range(max(box.queries // 2, 1)):
        j = k - len(candidates)
        if j < 0:
            tried = candidates[order[rows, k]]
        else:
            tried = _pattern(x[rows], rows, CELLS[j % len(CELLS)], over=bool(j // len(CELLS) % 2))
        met = box.met(tried, rows)
        x_adv[rows[met]], have[rows[met].cpu()] = tried[met], True
        rows = rows[~met]
        if not len(rows):
            break
    return x_adv, have.nonzero()[:, 0].to(x.device)


def _pattern(x: Tensor, rows: Tensor, cells: int, *, over: bool) -> Tensor:
    if not cells:
        return rng.uniform(x, rows)
    blocks = _blocks(x, rows, cells)
    return torch.where(_blocks(x[:, :1], rows, cells) > 0, blocks, x) if over else blocks


def _blocks(x: Tensor, rows: Tensor, cells: int) -> Tensor:
    """Blocks of 0 or 1 at random, this many cells along each axis: (n, C, *S), as x."""
    sides = [min(cells, n) for n in x.shape[2:]]
    z = rng.uniform(x.new_empty(len(x), x.shape[1], *sides), rows).round()
    for axis, (few, many) in enumerate(zip(sides, x.shape[2:], strict=True), 2):
        z = z.index_select(axis, torch.arange(many, device=x.device) * few // many)
    return z


def nearer(box: BlackBox, x: Tensor, x_adv: Tensor, rows: Tensor, norm: Norm, tolerance: float) -> Tensor:
    """Bring versions x_adv (B, C, *S) that meet the goal, in rows (n,), close to the decision boundary by bisection.

    The bisection between x_adv and x ends when the distance is known to the share tolerance of what it was.  In L2 it
    runs along the straight line, in Linf it clips x_adv to ever smaller cubes around x.
    """
    x_adv, rows = x_adv.clone(), rows.clone()
    far = x_adv[rows]
    high = perturbation_norm(far - x[rows], norm)
    low, close = torch.zeros_like(high), high * tolerance
    while True:
        on = (high - low > close) & (box.left(rows) > 0).to(x.device)
        rows, far, low, high, close = rows[on], far[on], low[on], high[on], close[on]
        if not len(rows):
            return x_adv
        middle = (low + high) / 2
        tried = project(far, x[rows], middle, norm)
        met = box.met(tried, rows)
        x_adv[rows[met]] = tried[met]
        low, high = torch.where(met, low, middle), torch.where(met, middle, high)
