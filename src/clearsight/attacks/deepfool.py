"""Moosavi-Dezfooli, Fawzi & Frossard 2016, arXiv:1511.04599, algorithm 2 and section 3.3."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from clearsight.attacks._cut import cut
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, per_picture, steepest
from clearsight.core.targets import Become, Goal, Misclassify
from clearsight.errors import Refused
from clearsight.internals.layers import flowing

LEAST = {"linf": 1e-6, "l2": 1e-4}  # of a step, in pixels: who stands on the boundary must still move


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
        raise Refused("deepfool goes over boundaries between classes: give right classes, or Become")
    if classes < 2 or min(steps, overshoot, back) < 0:
        raise Refused(
            f"deepfool(classes={classes}, steps={steps}, overshoot={overshoot:g}, back={back}): "
            "classes from 2, the others from 0"
        )

    def judge(rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        return goal[rows.cpu()].loss(out), goal[rows.cpu()].met(out)

    best = BestSoFar(x, norm)
    rows, near = torch.arange(len(x), device=x.device), x  # near: where they would be without the overshoot
    for i in range(steps + 1):
        z = (x[rows] + (1 + overshoot) * (near - x[rows])).clamp(0, 1)
        with torch.no_grad():
            loss, met = judge(rows, model(z))
        best.see(rows, z, loss, met)
        on = ~met.to(x.device)
        rows, near, z = rows[on], near[on], z[on]
        if i == steps or not len(rows):
            break
        near = (near + _move(model, z, goal[rows.cpu()], classes, norm)).clamp(0, 1)
    return cut(model, best, judge, norm, back)


def _move(model: Classifier, z: Tensor, goal: Misclassify | Become, classes: int, norm: Norm) -> Tensor:
    """The move (B, C, *S) from z onto the boundary that is to be crossed; nothing where there is no way."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        out = model(z)
    farthest = isinstance(goal, Become)
    move = torch.zeros_like(z)
    chosen = torch.full((len(z),), -torch.inf if farthest else torch.inf, device=z.device)
    for gap, slope in _boundaries(out, z, goal, classes):
        slope = torch.where(torch.where(slope > 0, z < 1, z > 0), slope, 0.0)
        way = steepest(slope, norm)
        steep = (way * slope).flatten(1).sum(1)  # how fast the gap closes that way
        far = gap / steep
        better = far.isfinite() & ((far > chosen) if farthest else (far < chosen))
        chosen = torch.where(better, far, chosen)
        length = per_picture(far.clamp_min(LEAST[norm]).nan_to_num(), z)
        move = torch.where(per_picture(better, z), length * way, move)
    return move.detach()


def _boundaries(out: Tensor, z: Tensor, goal: Misclassify | Become, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each of the boundaries looked at: how far outputs are from it (B,), and how that falls with the pixels."""
    outputs = out.detach()
    becomes = isinstance(goal, Become)
    if isinstance(goal, Become):
        one = nn.functional.one_hot(goal.t.to(out.device), out.shape[1]).bool()
    else:
        one = goal.right(outputs)
    own = outputs.masked_fill(~one, -torch.inf).argmax(1, keepdim=True)
    others = outputs.masked_fill(one, -torch.inf).topk(min(classes, out.shape[1]) - 1, dim=1)
    sign = -1.0 if becomes else 1.0
    mine = _slope(out, own, z)
    for value, index in zip(others.values.T, others.indices.T, strict=True):
        gap = sign * (outputs.gather(1, own)[:, 0] - value)
        yield gap, sign * (_slope(out, index[:, None], z) - mine)


def _slope(out: Tensor, index: Tensor, z: Tensor) -> Tensor:
    """How one output of each picture, index (B, 1), rises with its pixels z."""
    with torch.enable_grad():
        score = flowing(out.gather(1, index)[:, 0])
    (g,) = torch.autograd.grad(score, z, torch.ones_like(score), retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if g is None else g
