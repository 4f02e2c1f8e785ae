"""Fast adaptive boundary attack: search the nearest boundary point (Croce & Hein 2020, arXiv:1907.02044)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from clearsight.attacks.common.apgd import where
from clearsight.attacks.common.rival_classes import NONE, gap, in_groups, leave_later, rivals
from clearsight.core import rng
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.model import Model
from clearsight.core.norms import Norm, per_picture, perturbation_norm, steepest
from clearsight.core.targets import Goal, margin
from clearsight.internals.layers import flowing

BIAS = 0.1  # largest share of a step that begins at the picture itself (alpha_max of the paper)
OVER = 1.05  # length of a step, in distances to the linearised boundary (eta)
BACK = 0.9  # an iterate that meets the goal goes back to this share of its way from the picture (beta)
SEARCH = 3  # steps of the final search between the picture and the best version
BEYOND = 1e-4  # how far beyond the estimated boundary that search looks, as a share of the way
START: dict[Norm, float] = {"linf": 0.3, "l2": 1.0}  # a random start is at most half of this away


def nearest(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    steps: int,
    restarts: int,
    classes: int,
    targeted: bool,
    norm: Norm,
    enough: float = -1.0,
) -> BestSoFar:
    """Find the nearest version of each picture x (B, C, *S) that meets the goal; stop for those within enough."""
    with torch.no_grad():
        to = rivals(goal, model(x), classes)
    best = BestSoFar(x, norm)
    for part in torch.split(to, 1, dim=1) if targeted else (to,):
        rows = (part != NONE).any(1).nonzero()[:, 0]
        for restart in range(restarts):
            start = x[rows] if restart == 0 else _around(x[rows], best, rows, norm)
            _approach(
                model, goal, best, rows, start, part, norm=norm, steps=steps, leave=partial(_is_near, best, enough)
            )
    _search(model, x, goal, best, enough)
    return best


def _is_near(best: BestSoFar, enough: float, rows: Tensor) -> Tensor:
    return reached_distance(best)[rows] <= enough


def within(model: Model, x: Tensor, goal: Goal, *, eps: float, steps: int, classes: int, norm: Norm) -> Tensor:
    """FAB-T as part of auto-attack: a version within eps where one is found, else the picture itself.

    It is run towards one class after the other, from the picture, until a version within eps was found.
    """
    with torch.no_grad():
        to = rivals(goal, model(x), classes)
    best = BestSoFar(x, norm)
    for of, column in in_groups(to, lambda: ~_is_near(best, eps, torch.arange(len(x), device=x.device))):
        runs = BestSoFar(x[of], norm)
        rows = torch.arange(len(of), device=x.device)
        leave = partial(_earlier_is_near, runs, eps, of, len(x))
        towards = to[of, column][:, None]
        _approach(model, goal[of.cpu()], runs, rows, runs.clean, towards, norm=norm, steps=steps, leave=leave)
        for k in range(int(column[0]), int(column[-1]) + 1):
            mine = ((column == k) & ~_is_near(best, eps, of)).nonzero()[:, 0]
            best.see(of[mine], runs.x[mine], runs.loss[mine], runs.met[mine])
    _search(model, x, goal, best, eps)
    return where(reached_distance(best) <= eps, best.x, x)


def _earlier_is_near(runs: BestSoFar, enough: float, of: Tensor, pictures: int, rows: Tensor) -> Tensor:
    return leave_later(of, pictures, rows, _is_near(runs, enough, rows))


def _approach(
    model: Model,
    goal: Goal,
    best: BestSoFar,
    rows: Tensor,
    x_adv: Tensor,
    to: Tensor,
    *,
    norm: Norm,
    steps: int,
    leave: Callable[[Tensor], Tensor],
) -> None:
    """Run FAB once, from x_adv (n, ...), for the pictures rows (n,), across the nearest boundary to classes to (B, m).

    best sees all iterates.  leave: says which of rows (m,) are left alone from there on.
    """
    clean, of, towards = best.clean[rows], goal[rows.cpu()], to[rows]
    for _ in range(steps):
        gone = leave(rows)
        if bool(gone.any()):
            k = (~gone).nonzero()[:, 0]
            rows, x_adv, clean, towards = rows[k], x_adv[k], clean[k], towards[k]
            of = goal[rows.cpu()]
        if not len(rows):
            return
        value, slope = decision_boundary(model, x_adv, of, towards, norm)
        level = (slope * x_adv).flatten(1).double().sum(1) - value
        both = project(torch.cat([x_adv, clean]), slope.repeat(2, *[1] * (x_adv.dim() - 1)), level.repeat(2), norm)
        far, farther = perturbation_norm(both, norm).clamp_min(1e-8).chunk(2)
        delta, delta_clean = both.chunk(2)
        bias = per_picture((far / (far + farther)).clamp_max(BIAS), x_adv)
        x_adv = ((1 - bias) * (x_adv + OVER * delta) + bias * (clean + OVER * delta_clean)).clamp_(0, 1)
        met = _see(model, x_adv, of, best, rows)[1]
        x_adv = where(met, clean + BACK * (x_adv - clean), x_adv)


def decision_boundary(model: Model, x_adv: Tensor, goal: Goal, to: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The gap (n,), and its gradient (n, C, *S), of the nearest linearised boundary to the classes to (n, m)."""
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        out = model(x_adv)
        gaps = [flowing(gap(goal, out, column.clamp_min(0))) for column in to.T]
        totals = [one.sum() for one in gaps]
    nearest = torch.full_like(gaps[0].detach(), torch.inf)
    value, slope = torch.zeros_like(nearest), torch.zeros_like(x_adv)
    for j, (one, total) in enumerate(zip(gaps, totals, strict=True)):
        (g,) = torch.autograd.grad(total, x_adv, retain_graph=j + 1 < len(gaps), allow_unused=True)
        if g is None:
            continue
        steep = g.flatten(1).norm(dim=1) if norm == "l2" else g.flatten(1).abs().sum(1)
        far = one.detach().abs() / (steep + 1e-12)
        closer = (far < nearest) & (to[:, j] != NONE)
        nearest, value = torch.where(closer, far, nearest), torch.where(closer, one.detach(), value)
        slope = where(closer, g, slope)
    return value, slope.detach()


def project(z: Tensor, slope: Tensor, level: Tensor, norm: Norm) -> Tensor:
    """The smallest move (n, ...) of points z in [0, 1] onto the plane sum(slope * z) = level (n,), within [0, 1].

    Where the plane does not cut the box, the move leads to the corner that is nearest to the plane.

    All pixels move at once, each towards its border and no further: by t in linf, by t |slope| in l2.  The sum changes
    piecewise linearly with t, so t is found exactly, in a few passes over the pixels (see _time).

    >>> point, slope = torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, 2.0]])
    >>> project(point, slope, torch.tensor([2.8]), "linf"), project(point, slope, torch.tensor([2.8]), "l2")
    (tensor([[0.3000, 0.1000]]), tensor([[0.3000, 0.1000]]))
    >>> project(point, slope, torch.tensor([2.45]), "linf"), project(point, slope, torch.tensor([2.45]), "l2")
    (tensor([[0.0500, 0.0500]]), tensor([[0.0300, 0.0600]]))
    """
    p, w = z.flatten(1).double(), slope.flatten(1).double()
    lack = level.double() - (w * p).sum(1)
    way = w.sign() * lack.sign()[:, None]
    room = torch.where(way > 0, 1 - p, p).clamp_min_(0).mul_(way != 0)
    pace = w.abs().add_(w == 0) if norm == "l2" else w.new_ones(1)  # pixels that change nothing have no room
    t = _time(room, pace, w.abs(), lack.abs())
    move = way.mul_(torch.minimum(t[:, None] * pace, room))
    return move.to(z.dtype).view_as(z)


def _time(room: Tensor, pace: Tensor, weight: Tensor, lack: Tensor) -> Tensor:
    """The t (n,) at which pixels (n, m) that move by t pace, at most by their room, change the weighted sum by lack.

    Infinite where they cannot.  Without borders the sum would be right too soon.  Pixels that are beyond their border
    by then are held there, and the others go on: a time that is too short again, but less so, until none is new there.
    """
    rates, whole = weight * pace, weight * room
    reach = whole.sum(1)
    free = (room > 0).to(room)
    count = free.sum()
    while True:
        rate = torch.linalg.vecdot(rates, free)
        t = torch.where(rate > 0, (lack - reach + torch.linalg.vecdot(whole, free)) / rate, torch.inf)
        torch.gt(room, t[:, None] * pace, out=free)
        before, count = count, free.sum()
        if count >= before:
            return t


def _search(model: Model, x: Tensor, goal: Goal, best: BestSoFar, enough: float) -> None:
    """Search between each picture and its best version, where a line through their two margins crosses 0."""
    rows = (best.met & (reached_distance(best) > enough)).nonzero()[:, 0]
    if not len(rows):
        return
    clean, x_best = x[rows], best.x[rows]
    of = goal[rows.cpu()]
    low, high = x.new_zeros(len(rows)), x.new_ones(len(rows))
    with torch.no_grad():
        above, below = margin(of, model(clean)), margin(of, model(x_best))
    for _ in range(SEARCH):
        cross = (above / (above - below).clamp_min(1e-12)).clamp(0, 1)
        at = low + (high - low) * (cross + BEYOND).clamp_max(1)
        value, met = _see(model, clean + per_picture(at, clean) * (x_best - clean), of, best, rows)
        low, above = torch.where(met, low, at), torch.where(met, above, value)
        high, below = torch.where(met, at, high), torch.where(met, value, below)


def _see(model: Model, x_adv: Tensor, goal: Goal, best: BestSoFar, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The margin and whether the goal of just these pictures is met; best sees it."""
    with torch.no_grad():
        out = model(x_adv)
    value, met = margin(goal, out), goal.met(out).to(x_adv.device)
    best.see(rows, x_adv, value, met)
    return value, met


def reached_distance(best: BestSoFar) -> Tensor:
    """Distance of the best version that meets the goal, (B,); infinite where none does."""
    return torch.where(best.met, best.distance, torch.inf)


def _around(x: Tensor, best: BestSoFar, rows: Tensor, norm: Norm) -> Tensor:
    """A random point around x, at half the distance of the best version, or at half of START where that is less."""
    way = rng.normal(x, rows) if norm == "l2" else 2 * rng.uniform(x, rows) - 1
    way = steepest(way, "l2") if norm == "l2" else way / per_picture(perturbation_norm(way, norm), way)
    return (x + per_picture(reached_distance(best)[rows].clamp_max(START[norm]) / 2, x) * way).clamp(0, 1)
