"""Moosavi-Dezfooli, Fawzi & Frossard 2016, arXiv:1511.04599, algorithm 2 and section 3.3."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from clearsight.attacks.common.bisection import cut
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, per_picture, steepest
from clearsight.core.targets import Become, Goal, Misclassify
from clearsight.errors import Refused
from clearsight.internals.layers import flowing

LEAST = {"linf": 1e-6, "l2": 1e-4}  # smallest step in pixels, so that an iterate on the boundary still moves


@method(paper="arXiv:1511.04599", claims="linf l2 minimal")
def deepfool(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 50,
    overshoot: float = 0.02,
    classes: int = 10,
    back: int = 10,
    norm: Norm = "l2",
) -> Tensor:
    """The shortest way across the nearest boundary of the linearised model, repeated until the boundary is crossed.

    x (B, C, *S) in [0, 1] -> the same shape.  eps, in pixels, is used by the runner alone: the smallest change that is
    found is returned, whatever its size.

    A pixel that would leave [0, 1] is held at the border, and the other pixels take over its part of the move.  Where
    several classes are right, the attack leaves the one with the highest output.  For Become it crosses the farthest of
    the boundaries between the picture and that class.

    Args:
        steps: maximum number of steps, from 0.
        overshoot: share by which the whole move goes further than to the boundary, from 0.
        classes: number of classes that are looked at, from 2: the right one and the best of the others.
        back: number of halvings that find the smallest ball to which the result can be cut and still meets the goal; 0
            leaves the paper's own result.
        norm: norm in which the change is smallest, l2 or linf.

    Refused: a goal that is neither Misclassify nor Become.

    Source: Moosavi-Dezfooli, Fawzi & Frossard 2016, algorithm 2 and section 3.3.

    The boundary is where 3 a - 4 b = 0, and (0.5, 0) lies 1.5 / 5 from it:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.0]]]]), Misclassify(torch.tensor([0]))
    >>> deepfool(linear([[3.0, -4.0], [0.0, 0.0]]), x, right, eps=1.0, overshoot=0.0)
    tensor([[[[0.3200, 0.2400]]]])
    """
    if not isinstance(goal, Misclassify | Become):
        raise Refused(
            "deepfool crosses boundaries between classes, but the goal names no class: give right classes, or Become"
        )
    if classes < 2 or min(steps, overshoot, back) < 0:
        raise Refused(
            f"deepfool(classes={classes}, steps={steps}, overshoot={overshoot:g}, back={back}): classes must be at "
            "least 2, the others at least 0"
        )

    def judge(rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        return goal[rows.cpu()].loss(out), goal[rows.cpu()].met(out)

    best = BestSoFar(x, norm)
    rows, near = torch.arange(len(x), device=x.device), x  # near: the iterates without the overshoot
    for i in range(steps + 1):
        x_adv = (x[rows] + (1 + overshoot) * (near - x[rows])).clamp(0, 1)
        with torch.no_grad():
            loss, met = judge(rows, model(x_adv))
        best.see(rows, x_adv, loss, met)
        on = ~met.to(x.device)
        rows, near, x_adv = rows[on], near[on], x_adv[on]
        if i == steps or not len(rows):
            break
        near = (near + _move(model, x_adv, goal[rows.cpu()], classes, norm)).clamp(0, 1)
    return cut(model, best, judge, norm, back)


def _move(model: Classifier, x_adv: Tensor, goal: Misclassify | Become, classes: int, norm: Norm) -> Tensor:
    """The move (B, C, *S) from x_adv onto the boundary that is to be crossed; 0 where the gradient shows none."""
    x_adv = x_adv.detach().requires_grad_()
    with torch.enable_grad():
        out = model(x_adv)
    farthest = isinstance(goal, Become)
    move = torch.zeros_like(x_adv)
    chosen = torch.full((len(x_adv),), -torch.inf if farthest else torch.inf, device=x_adv.device)
    for gap, slope in _boundaries(out, x_adv, goal, classes):
        slope = torch.where(torch.where(slope > 0, x_adv < 1, x_adv > 0), slope, 0.0)
        way = steepest(slope, norm)
        steep = (way * slope).flatten(1).sum(1)  # how fast the gap closes along the way
        far = gap / steep
        better = far.isfinite() & ((far > chosen) if farthest else (far < chosen))
        chosen = torch.where(better, far, chosen)
        length = per_picture(far.clamp_min(LEAST[norm]).nan_to_num(), x_adv)
        move = torch.where(per_picture(better, x_adv), length * way, move)
    return move.detach()


def _boundaries(
    out: Tensor, x_adv: Tensor, goal: Misclassify | Become, classes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each boundary that is considered the gap of the outputs (B,) and how fast the pixels close it."""
    outputs = out.detach()
    becomes = isinstance(goal, Become)
    if isinstance(goal, Become):
        one = nn.functional.one_hot(goal.t.to(out.device), out.shape[1]).bool()
    else:
        one = goal.right(outputs)
    current = outputs.masked_fill(~one, -torch.inf).argmax(1, keepdim=True)
    others = outputs.masked_fill(one, -torch.inf).topk(min(classes, out.shape[1]) - 1, dim=1)
    sign = -1.0 if becomes else 1.0
    mine = _slope(out, current, x_adv)
    for value, index in zip(others.values.T, others.indices.T, strict=True):
        gap = sign * (outputs.gather(1, current)[:, 0] - value)
        yield gap, sign * (_slope(out, index[:, None], x_adv) - mine)


def _slope(out: Tensor, index: Tensor, x_adv: Tensor) -> Tensor:
    """How one output of each picture, index (B, 1), rises with its pixels x_adv."""
    with torch.enable_grad():
        score = flowing(out.gather(1, index)[:, 0]).sum()
    (g,) = torch.autograd.grad(score, x_adv, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x_adv) if g is None else g
