"""Auto-PGD: steepest steps whose size is halved where they stop helping (Croce & Hein 2020, arXiv:2003.01690)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from clearsight.attacks.common.rival_classes import NONE, gap, left, rivals
from clearsight.core import rng
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, per_picture, perturbation_norm, project, steepest
from clearsight.core.targets import Become, Goal, margin
from clearsight.errors import Refused
from clearsight.internals.layers import gradients

MOMENTUM = 0.75  # weight of the new step; the step before has the rest (equation 2 of the paper)

Loss = Callable[
    [Goal, Tensor, Tensor], Tensor
]  # goal of n pictures, outputs (n, K), rows (n,) -> (n,), to be minimised


def restarted(
    model: Classifier,
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
        descend(model, x, goal, loss, best, rows, eps=eps, steps=steps, rho=rho, early_stop=early_stop, norm=norm)
    return best.x


def towards_each(
    model: Classifier, x: Tensor, goal: Goal, *, eps: float, steps: int, classes: int, norm: Norm
) -> Tensor:
    """APGD-T: attack towards each of the most likely other classes in turn, as long as the goal is not met.

    The loss is the targeted DLR (section 4 and appendix of the paper).  The classes are ordered by the clean outputs.
    """
    with torch.no_grad():
        to = rivals(goal, model(x), classes)
    best = BestSoFar(x)
    for column in to.T:
        rows = (~best.met & (column != NONE)).nonzero()[:, 0]
        loss = _dlr_towards(column)
        descend(model, x, goal, loss, best, rows, eps=eps, steps=steps, rho=0.75, early_stop=True, norm=norm)
        best.loss[~best.met] = torch.inf  # losses towards different classes cannot be compared
    return best.x


def _dlr_towards(column: Tensor) -> Loss:
    return lambda goal, out, rows: dlr(goal, out, column[rows])


def descend(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    loss: Loss,
    best: BestSoFar,
    rows: Tensor,
    *,
    eps: float,
    steps: int,
    rho: float,
    early_stop: bool,
    norm: Norm,
) -> None:
    """Run algorithm 1 of the paper once, from random points, for the pictures rows (n,) of x; best sees all iterates.

    The first step has the size 2 eps.  At a checkpoint the step is halved, and the run goes on from its best point, in
    two cases: no more than a share rho of the steps since the last checkpoint lowered the loss; or the best point has
    not changed since the last checkpoint, and the step was not halved there.  In the first case the paper says "fewer"
    and its authors' program "no more"; published figures come from the program.
    """
    x_adv = before = _edge(x[rows], eps, norm, rows)
    step = x.new_full((len(rows),), 2 * eps)
    ends = checkpoints(steps)
    state: tuple[Tensor, ...] = ()
    for i in range(steps + 1):
        if not len(rows):
            return
        f, g, met = _look(model, x_adv, goal, loss, rows)
        best.see(rows, x_adv, f, met)
        if i == steps:
            return
        if i == 0:
            state = x_adv, g, f, f, f, torch.zeros_like(f), torch.ones_like(met)
        x_best, slope, low, last, mark, falls, halved = state
        falls = falls + (f < last)
        lower = f < low
        x_best, slope, low = where(lower, x_adv, x_best), where(lower, g, slope), torch.where(lower, f, low)
        last = f
        if i in ends:
            worn = (falls <= rho * ends[i]) | (~halved & (low >= mark))
            step = torch.where(worn, step / 2, step)
            x_adv, g = where(worn, x_best, x_adv), where(worn, slope, g)
            halved, mark, falls = worn, low, torch.zeros_like(falls)
        on = ~met if early_stop else torch.ones_like(met)
        state = tuple(t[on] for t in (x_best, slope, low, last, mark, falls, halved))
        rows, x_adv, g, before, step = (t[on] for t in (rows, x_adv, g, before, step))
        ahead = project(x_adv - per_picture(step, x_adv) * steepest(g, norm), x[rows], eps, norm)
        new = MOMENTUM if i else 1.0
        x_adv, before = project(x_adv + new * (ahead - x_adv) + (1 - new) * (x_adv - before), x[rows], eps, norm), x_adv


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
    right = left(goal, outputs)
    if isinstance(goal, Become):
        return outputs
    highest = outputs.masked_fill(~right, -torch.inf).argmax(1, keepdim=True)
    return outputs.masked_fill(right.scatter(1, highest, False), -torch.inf)


def _look(model: Classifier, x_adv: Tensor, goal: Goal, loss: Loss, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss at x_adv (n, ...), its gradient, and whether the goal is met."""
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        out = model(x_adv)
        f = loss(goal[rows.cpu()], out, rows)
    (g,) = gradients(f, x_adv)
    return f.detach(), g, goal[rows.cpu()].met(out.detach()).to(x_adv.device)


def _edge(x: Tensor, eps: float, norm: Norm, rows: Tensor) -> Tensor:
    """The start of a run: x with a random change of the full size eps, clipped to [0, 1]."""
    way = rng.normal(x, rows) if norm == "l2" else 2 * rng.uniform(x, rows) - 1
    return project(x + eps * way / per_picture(perturbation_norm(way, norm).clamp_min(1e-12), x), x, eps, norm)


def where(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(per_picture(which, a), a, b)
