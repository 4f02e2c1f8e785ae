"""Croce & Hein 2020, arXiv:1907.02044, algorithm 1; its targeted version is that of arXiv:2003.01690."""

from torch import Tensor

from clearsight.attacks.common.fab import nearest
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal
from clearsight.errors import Refused


@method(paper="arXiv:1907.02044", claims="linf l2 minimal stochastic")
def fab(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 100,
    restarts: int = 1,
    classes: int = 9,
    targeted: bool = False,
    norm: Norm = "linf",
) -> Tensor:
    """Fast adaptive boundary attack: steps onto the linearised boundary, and along it towards the picture.

    x (B, C, *S) in [0, 1] -> the same shape.  eps, in pixels, is used by the runner alone: the smallest change that is
    found is returned, whatever its size.

    Each step goes 1.05 times as far as the linear model says.  A share of it, at most 0.1, starts from the picture
    itself instead of from the iterate.  An iterate that meets the goal goes back to 0.9 of its way from the picture.
    At the end 3 steps search between the picture and the best point found.

    Args:
        steps: number of steps of each run, from 1.
        restarts: number of runs, from 1; the first begins at the picture, the others at random points around it.
        classes: number of the most likely other classes to which boundaries are looked for; each costs one backward
            pass at every step.
        targeted: run the whole attack towards one class after the other, instead of towards the nearest at each step.
        norm: norm in which the change is smallest, linf or l2.

    Refused: a goal that names no classes.

    Source: Croce & Hein 2020, arXiv:1907.02044, algorithm 1; its targeted version is that of arXiv:2003.01690.

    The boundary is where 3 a = 2 b; from (0.5, 0.5) both move by 0.5 / 5:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> fab(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=1.0)
    tensor([[[[0.4000, 0.6000]]]])
    """
    if steps < 1 or restarts < 1:
        raise Refused(f"fab(steps={steps}, restarts={restarts}): steps and restarts must be at least 1")
    return nearest(model, x, goal, steps=steps, restarts=restarts, classes=classes, targeted=targeted, norm=norm).x
