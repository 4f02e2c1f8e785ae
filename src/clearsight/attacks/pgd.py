"""Madry et al. 2018, arXiv:1706.06083, section 2.1."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.norms import Norm, project, step_down, within
from clearsight.core.targets import Goal, tangent
from clearsight.errors import Refused
from clearsight.internals.layers import gradients


@method(paper="arXiv:1706.06083", claims="linf l2 stochastic")
def pgd(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    random_start: bool = False,
    early_stop: bool = True,
    norm: Norm = "linf",
    keep: Literal["best", "last"] = "best",
) -> Tensor:
    """Steepest steps towards the goal, projected into the eps-ball, with restarts.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  Of all iterates of all restarts the best is returned for
    each picture: one that meets the goal, and among those (or where there is none) the one with the lowest loss.  With
    ``keep=last`` it is the last one, which nobody judges: k steps then take k passes forwards instead of k + 1.

    Args:
        steps: gradient steps of each restart, from 0.
        step: size of one step in pixels; none is eps / 4, but at least 2.5 eps / steps.
        restarts: number of runs, from 1; the first begins at the picture itself, the others at random points of the
            ball.
        random_start: begin at a random point of the ball in the first run too, as training against pgd does.
        early_stop: leave a picture alone once it meets the goal.
        norm: norm of the budget and of the steps.  The steepest step of linf is the gradient's sign, that of l2 the
            gradient divided by its length.
        keep: which iterate is returned: the best one, or the last one, as in the loops by which the paper and its
            followers train; where pictures are left alone early it is the one at which that was done.

    Refused: fewer than no steps, no run, and the last iterate of more than one.

    Source: Madry et al. 2018, section 2.1.

    With two steps of half the budget and more, a linear model ends in the worst corner of the cube:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> pgd(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=0.25, steps=2, early_stop=False).tolist()
    [[[[0.25, 0.75]]]]
    """
    if steps < 0 or restarts < 1:
        raise Refused(f"pgd(steps={steps}, restarts={restarts}): steps must be at least 0, restarts at least 1")
    if keep == "last" and restarts > 1:
        raise Refused(f"pgd(keep=last, restarts={restarts}): several runs have no last iterate", "leave one out")
    size = max(eps / 4, 2.5 * eps / max(steps, 1)) if step is None else step
    best, is_judged = BestSoFar(x), keep == "best" or early_stop
    for restart in range(restarts):
        rows = (~best.met).nonzero()[:, 0] if early_stop else torch.arange(len(x), device=x.device)
        clean, aim = (x, goal) if len(rows) == len(x) else (x[rows], goal[rows.cpu()])
        x_adv = within(clean, eps, norm, rows) if restart or random_start else clean
        for _ in range(steps):
            if not len(rows):
                return best.x
            x_adv = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                out = model(x_adv)
                loss = aim.loss(out) if is_judged else tangent(aim, out)
            (g,) = gradients(loss, x_adv)
            moved = project(step_down(x_adv.detach(), g, size, norm), clean, eps, norm)
            if is_judged:
                met = aim.met(out.detach()).to(x.device)
                best.see(rows, x_adv, loss, met)
                if early_stop and bool(met.any()):
                    left = ~met
                    rows, moved, clean, aim = rows[left], moved[left], clean[left], aim[left.cpu()]
            x_adv = moved
        if keep == "last":
            best.x.index_copy_(0, rows, x_adv)
        elif len(rows):
            with torch.no_grad():
                out = model(x_adv.detach())
                best.see(rows, x_adv, aim.loss(out), aim.met(out))
    return best.x
