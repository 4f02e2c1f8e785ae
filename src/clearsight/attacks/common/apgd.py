"""Auto-PGD: steepest steps whose size is halved where they stop helping (Croce & Hein 2020, arXiv:2003.01690)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from clearsight.attacks.common.rival_classes import gap, in_groups, leave_later, left, rivals
from clearsight.core import rng
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.model import Model
from clearsight.core.norms import Norm, per_picture, perturbation_norm, project, steepest
from clearsight.core.targets import Become, Goal, Misclassify, margin
from clearsight.errors import Refused
from clearsight.internals.layers import gradients

MOMENTUM = 0.75  # weight of the new step; the step before has the rest (equation 2 of the paper)

Loss = Callable[
    [Goal, Tensor, Tensor], Tensor
]  # goal of n pictures, outputs (n, K), rows (n,) -> (n,), to be minimised
Leave = Callable[[Tensor, Tensor], Tensor]  # rows (n,), which of them just met the goal (n,) -> which leave (n,)


def restarted(
    model: Model,
    x: Tensor,
    goal: Goal,
    loss: Loss,
    *,
    eps: float,
    steps: int,
    restarts: int,
    rho: float,
    early_stop: bool,
    norm: Norm,
) -> Tensor:
    """Return, for each picture x (B, C, *S), the best of all iterates of several runs from random points."""
    if steps < 1 or restarts < 1 or not 0 <= rho <= 1:
        raise Refused(
            f"steps={steps}, restarts={restarts}, rho={rho:g}: steps and restarts must be at least 1, rho from 0 to 1"
        )
    best = BestSoFar(x)
    for _ in range(restarts):
        rows = (~best.met).nonzero()[:, 0] if early_stop else torch.arange(len(x), device=x.device)
        start = _edge(x[rows], eps, norm, rows)
        run = partial(descend, model, x, goal, loss, best, eps=eps, steps=steps, rho=rho, norm=norm)
        run(rows, start, leave=(lambda _rows, met: met) if early_stop else None)
    return best.x


def towards_each(model: Model, x: Tensor, goal: Goal, *, eps: float, steps: int, classes: int, norm: Norm) -> Tensor:
    """APGD-T: attack towards each of the most likely other classes in turn, as long as the goal is not met.

    The loss is the targeted DLR (section 4 and appendix of the paper).  The classes are ordered by the clean outputs.
    """
    with torch.no_grad():
        to = rivals(goal, model(x), classes)
    best = BestSoFar(x)
    for of, column in in_groups(to, lambda: ~best.met):
        runs = BestSoFar(x[of])
        wanted = to[of, column]
        leave = partial(leave_later, of, len(x))
        start = _edge(runs.x, eps, norm, of)
        all_rows = torch.arange(len(of), device=x.device)
        loss = _dlr_towards(wanted)
        descend(
            model, runs.clean, goal[of.cpu()], loss, runs, all_rows, start,
            eps=eps, steps=steps, rho=0.75, leave=leave, norm=norm,
        )  # fmt: skip
        for k in range(int(column[0]), int(column[-1]) + 1):
            mine = ((column == k) & ~best.met[of]).nonzero()[:, 0]
            best.loss[~best.met] = torch.inf  # losses towards different classes cannot be compared
            best.see(of[mine], runs.x[mine], runs.loss[mine], runs.met[mine])
    return best.x


def _dlr_towards(column: Tensor) -> Loss:
    return lambda goal, out, rows: dlr(goal, out, column[rows])


@dataclass
class _State:
    """Where the runs of n pictures stand: the pictures, the iterates, and what decides on their step sizes."""

    rows: Tensor  # their numbers
    x: Tensor
    low_x: Tensor  # the lowest and the highest pixels of the budget's cube
    high_x: Tensor
    x_adv: Tensor
    before: Tensor  # the iterate before
    step: Tensor
    x_best: Tensor  # the iterate with the lowest loss, its slope and its loss
    slope: Tensor
    low: Tensor
    last: Tensor  # the loss of the iterate before
    mark: Tensor  # the lowest loss at the last checkpoint
    falls: Tensor  # steps since then that lowered the loss
    halved: Tensor  # whether the step was halved there

    def keep(self, k: Tensor) -> None:
        for name, value in vars(self).items():
            setattr(self, name, value[k])


def descend(
    model: Model,
    x: Tensor,
    goal: Goal,
    loss: Loss,
    best: BestSoFar,
    rows: Tensor,
    start: Tensor,
    *,
    eps: float,
    steps: int,
    rho: float,
    leave: Leave | None,
    norm: Norm,
) -> None:
    """Run algorithm 1 of the paper once, from start (n, ...), for the pictures rows (n,) of x; best sees all iterates.

    leave: says of rows (m,), and of which of them have just met the goal, which are left alone from there on.

    The first step has the size 2 eps.  At a checkpoint the step is halved, and the run goes on from its best point, in
    two cases: no more than a share rho of the steps since the last checkpoint lowered the loss; or the best point has
    not changed since the last checkpoint, and the step was not halved there.  In the first case the paper says "fewer"
    and its authors' program "no more"; published figures come from the program.
    """
    ends = checkpoints(steps)
    x_adv, of = start, goal[rows.cpu()]
    state: _State | None = None
    for i in range(steps + 1):
        if not len(rows):
            return
        f, g, met = _look(model, x_adv, of, loss, rows, slopes=i < steps)
        best.see(rows, x_adv, f, met)
        if i == steps:
            return
        if state is None:
            step, none = x.new_full((len(rows),), 2 * eps), torch.zeros_like(f)
            clean = x[rows]
            cube = (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1)
            on = torch.ones_like(met)
            state = _State(rows, clean, *cube, x_adv, x_adv, step, x_adv.clone(), g.clone(), f.clone(), f, f, none, on)
        gone = None if leave is None else leave(rows, met)
        if gone is not None and bool(gone.any()):
            k = (~gone).nonzero()[:, 0]
            state.keep(k)
            f, g, rows, of = f[k], g[k], state.rows, goal[state.rows.cpu()]
        g = _notice(state, f, g, rho, ends.get(i))
        x_adv = _step(state, g, eps, norm, MOMENTUM if i else 1.0)


def _notice(s: _State, f: Tensor, g: Tensor, rho: float, period: int | None) -> Tensor:
    """Take the losses and slopes of the iterates; at a checkpoint, after period steps, halve the steps of some.

    Returns the slopes to go on with.
    """
    s.falls = s.falls + (f < s.last)
    lower = (f < s.low).nonzero()[:, 0]
    for kept, new in (s.x_best, s.x_adv), (s.slope, g), (s.low, f):
        kept.index_copy_(0, lower, new.index_select(0, lower))
    s.last = f
    if period is None:
        return g
    worn = (s.falls <= rho * period) | (~s.halved & (s.low >= s.mark))
    s.step = torch.where(worn, s.step / 2, s.step)
    s.x_adv, g = where(worn, s.x_best, s.x_adv), where(worn, s.slope, g)
    s.halved, s.mark, s.falls = worn, s.low.clone(), torch.zeros_like(s.falls)
    return g


def _step(s: _State, g: Tensor, eps: float, norm: Norm, new: float) -> Tensor:
    """The next iterate of each: a share new of the steepest step, the rest of the step before."""
    ahead = s.x_adv - steepest(g, norm).mul_(per_picture(s.step, g))
    move = _within(s, ahead, eps, norm).sub_(s.x_adv).mul_(new)
    x_adv = _within(s, move.add_(s.x_adv).add_((s.x_adv - s.before).mul_(1 - new)), eps, norm)
    s.x_adv, s.before = x_adv, s.x_adv
    return x_adv


def _within(s: _State, raw: Tensor, eps: float, norm: Norm) -> Tensor:
    """`project` onto the budget; raw (n, C, *S) is used up."""
    return project(raw, s.x, eps, norm) if norm == "l2" else torch.clamp(raw, s.low_x, s.high_x, out=raw)


def checkpoints(steps: int) -> dict[int, int]:
    """Map each checkpoint, counted in steps, to the number of steps since the one before.

    The first checkpoint comes after 22 % of all steps.  Each following interval is 3 % of all steps shorter, but at
    least 6 % (section 3 of the paper).

    >>> checkpoints(100)
    {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    period, shorter, least = (max(share * steps // 100, 1) for share in (22, 3, 6))
    periods, end = {}, period
    while end <= steps:
        periods[end] = period
        period = max(period - shorter, least)
        end += period
    return periods


def dlr(goal: Goal, outputs: Tensor, to: Tensor | None = None) -> Tensor:
    """The difference of logits ratio (B,) of outputs (B, K): a distance from the goal that no scaling of them changes.

    z_1, z_2, ... are the outputs in falling order.  Misclassify takes equation 6 of the paper, z_y less the best other
    output, divided by z_1 - z_3.  Become, and classes to (B,), take equation 7, z_y - z_t divided by
    z_1 - (z_3 + z_4) / 2; for Become z_y is the best of the other outputs.  Of several right classes only the best one
    is kept among the outputs.

    With three outputs the targeted ratio subtracts (z_2 + z_3) / 2 instead; otherwise it would be constant where t is
    the last.  With two outputs every such divisor would make the ratio 1 everywhere, so it is the difference alone.

    >>> from clearsight.core.targets import Misclassify
    >>> dlr(Misclassify(torch.tensor([0])), torch.tensor([[5.0, 1.0, 3.0]]))
    tensor([0.5000])
    >>> dlr(Become(torch.tensor([1])), torch.tensor([[5.0, 1.0, 3.0, 2.0]]))
    tensor([1.1429])
    """
    untargeted = to is None and not isinstance(goal, Become)
    above = margin(goal, outputs) if to is None else gap(goal, outputs, to)
    ranked = _one_of_the_right(goal, outputs).sort(1, descending=True).values
    if ranked.shape[1] > 3 and bool(ranked[:, :4].isfinite().all()):  # the usual case
        scale = ranked[:, 0] - (ranked[:, 2] if untargeted else (ranked[:, 2] + ranked[:, 3]) / 2)
        return above / (scale + 1e-12)
    ranked = nn.functional.pad(ranked, (0, max(0, 4 - ranked.shape[1])), value=-torch.inf)
    is_finite = ranked.isfinite()
    first, second, third, fourth = ranked.masked_fill(~is_finite, 0).T[:4]
    if untargeted:
        scale = torch.where(is_finite[:, 2], first - third, 1.0)
    else:
        scale = torch.where(is_finite[:, 2], first - (second + third) / 2, 1.0)
        scale = torch.where(is_finite[:, 3], first - (third + fourth) / 2, scale)
    return above / (scale + 1e-12)


def _one_of_the_right(goal: Goal, outputs: Tensor) -> Tensor:
    """The outputs (B, K) in which every right class but the best one is set to -inf."""
    if isinstance(goal, Become) or (isinstance(goal, Misclassify) and goal.only(outputs) is not None):
        return outputs
    right = left(goal, outputs)
    highest = outputs.masked_fill(~right, -torch.inf).argmax(1, keepdim=True)
    return outputs.masked_fill(right.scatter(1, highest, False), -torch.inf)


def _look(
    model: Model, x_adv: Tensor, goal: Goal, loss: Loss, rows: Tensor, *, slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss at x_adv (n, ...), its gradient (where slopes are wanted, else 0), and whether the goal is met."""
    x_adv = x_adv.detach().requires_grad_(slopes)
    with torch.set_grad_enabled(slopes):
        out = model(x_adv)
        f = loss(goal, out, rows)
    (g,) = gradients(f, x_adv) if slopes else (torch.zeros_like(f),)
    return f.detach(), g, goal.met(out.detach()).to(x_adv.device)


def _edge(x: Tensor, eps: float, norm: Norm, rows: Tensor) -> Tensor:
    """The start of a run: x with a random change of the full size eps, clipped to [0, 1]."""
    way = rng.normal(x, rows) if norm == "l2" else 2 * rng.uniform(x, rows) - 1
    return project(x + eps * way / per_picture(perturbation_norm(way, norm).clamp_min(1e-12), x), x, eps, norm)


def where(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(per_picture(which, a), a, b)
