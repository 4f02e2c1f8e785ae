"""Kurakin, Goodfellow & Bengio 2016, arXiv:1607.02533, section 2.2."""

from torch import Tensor

from clearsight.attacks.common.small_steps import descend
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal
from clearsight.errors import Refused


@method(paper="arXiv:1607.02533", claims="linf l2")
def bim(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 10,
    step: float | None = None,
    norm: Norm = "linf",
    early_stop: bool = True,
) -> Tensor:
    """Basic iterative method: FGSM in small steps, each from the previous iterate, clipped to the eps-ball.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  It begins at the picture itself and draws no random
    numbers.  The best iterate is returned: one that meets the goal, and among those (or where there is none) the one
    with the lowest loss.

    Args:
        steps: number of steps, from 1.
        step: size of one step in pixels; none is 1.25 eps / steps, which for the paper's eps of 8/255 and its 10 steps
            is its one grey level.
        norm: norm of the budget and of the steps, linf or l2.
        early_stop: leave a picture alone once it meets the goal.

    Source: Kurakin, Goodfellow & Bengio 2016, section 2.2.

    Two steps of 1/16 lower the first pixel and raise the second by 1/8:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> bim(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=0.25, steps=2, step=0.0625, early_stop=False).tolist()
    [[[[0.375, 0.625]]]]
    """
    if steps < 1:
        raise Refused(f"bim(steps={steps}): steps must be at least 1")
    size = 1.25 * eps / steps if step is None else step
    return descend(model, x, goal, eps=eps, steps=steps, step=size, momentum=0.0, norm=norm, early_stop=early_stop)
