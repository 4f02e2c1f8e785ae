"""Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572, section 4; in L2 as Dong et al. write it, arXiv:1710.06081.

With a random start it is the attack by which Wong, Rice & Kolter 2020 train, arXiv:2001.03994, section 4.
"""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.norms import Norm, project, step_down, within
from clearsight.core.targets import Goal, tangent
from clearsight.internals.layers import gradients


@method(paper="arXiv:1412.6572", claims="linf l2 stochastic")
def fgsm(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    norm: Norm = "linf",
    random_start: bool = False,
    step: float | None = None,
) -> Tensor:
    """Fast gradient sign method: one step of size eps in the direction in which the loss of the goal falls most.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.

    Args:
        norm: linf takes a step of eps at every pixel, along the sign of the gradient; l2 takes a step of length eps
            along the gradient itself.
        random_start: step from a random point within eps instead of the picture, and back into the budget afterwards.
        step: size of the step in pixels; none is eps, and 1.25 eps from a random start.

    Source: Goodfellow, Shlens & Szegedy 2015, section 4; in L2 Dong et al. 2018; from a random start Wong et al. 2020,
    algorithm 3.

    On a linear model the step is the best one there is: down where the weight of the right class is larger.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> fgsm(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=0.25).tolist()
    [[[[0.25, 0.75]]]]
    >>> fgsm(linear([[3.0, -4.0], [0.0, 0.0]]), x, right, eps=0.25, norm="l2")
    tensor([[[[0.3500, 0.7000]]]])
    """
    usual = 1.25 * eps if random_start else eps
    size = usual if step is None else step
    start = within(x, eps, norm) if random_start else x
    z = start.detach().requires_grad_()
    with torch.enable_grad():
        falling = tangent(goal, model(z))
    (g,) = gradients(falling, z)
    moved = step_down(start, g, size, norm)
    return moved.clamp_(0, 1) if size == eps and not random_start else project(moved, x, eps, norm)
