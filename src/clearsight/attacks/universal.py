"""Moosavi-Dezfooli et al. 2017, arXiv:1610.08401; learned by gradients as Shafahi et al. 2020, arXiv:1811.11304, do."""

import torch
from torch import Tensor

from clearsight.attacks.common.lessons import learned, sorted_lessons
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.norms import Norm, project, steepest
from clearsight.core.targets import Goal
from clearsight.errors import Refused


@method(paper="arXiv:1610.08401", claims="linf l2")
def universal(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    lessons: tuple[Tensor, Goal],
    steps: int = 10,
    step: float | None = None,
    norm: Norm = "linf",
) -> Tensor:
    """One change for all pictures, learned from other pictures and then added to these.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  lessons: pictures (N, C, *S) and their goal, from which
    the change is learned; nothing is learned from x, and the order of the lessons does not matter.

    The change begins at 0 and follows the steepest descent of the mean clipped cross-entropy of sixteen lessons at a
    time, projected into the eps-ball.  After each pass through the lessons those that meet their goal are counted, and
    the change with the most of them is kept.

    Args:
        steps: number of passes through all lessons, from 1; each costs two passes forward and one back for each lesson.
        step: size of one step in pixels; none is eps / 10, but never so small that the border of the ball is out of
            reach.
        norm: norm of the budget and of the steps, linf or l2.

    Source: Moosavi-Dezfooli et al. 2017; learned by gradients as by Shafahi et al. 2020.

    What a linear model of two classes is fooled by most is the corner of the cube along its weights:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> model, lessons = linear([[3.0, -2.0], [0.0, 0.0]]), torch.full((4, 1, 1, 2), 0.5)
    >>> x, right = torch.tensor([[[[0.5, 0.125]]]]), Misclassify(torch.tensor([0]))
    >>> universal(model, x, right, eps=0.25, lessons=(lessons, Misclassify(torch.zeros(4, dtype=torch.long)))).tolist()
    [[[[0.25, 0.375]]]]
    """
    if steps < 1:
        raise Refused(f"universal(steps={steps}): steps, the passes over the lessons, must be at least 1")
    pictures, wanted = sorted_lessons(model, lessons, x, "universal")
    changes = steps * -(-len(pictures) // 16)
    size = max(eps / 10, 2.5 * eps / changes) if step is None else step

    def wear(z: Tensor, change: Tensor, _rows: Tensor) -> Tensor:
        return z + change

    def shifted(change: Tensor, way: Tensor, _done: float) -> Tensor:
        moved = change - size * steepest(way[None], norm)[0]
        return _within(moved, eps, norm)

    change = learned(model, (pictures, wanted), torch.zeros_like(x[0]), wear, shifted, steps=steps)
    return project(x + change, x, eps, norm)


def _within(change: Tensor, eps: float, norm: Norm) -> Tensor:
    """Project a change (C, *S) into the ball of radius eps."""
    if norm == "linf":
        return change.clamp(-eps, eps)
    length = change.norm()
    return change * (eps / length) if float(length) > eps else change
