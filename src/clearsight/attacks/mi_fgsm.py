"""Dong et al. 2018, arXiv:1710.06081, algorithm 1; in L2 by its section 3.3."""

from torch import Tensor

from clearsight.attacks.common.small_steps import descend
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal
from clearsight.errors import Refused


@method(paper="arXiv:1710.06081", claims="linf l2")
def mi_fgsm(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 10,
    step: float | None = None,
    momentum: float = 1.0,
    norm: Norm = "linf",
    early_stop: bool = False,
) -> Tensor:
    """Steps along the accumulated gradients of all steps so far, so that the result fools other models too.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  The best iterate is returned: one that meets the goal, and
    among those (or where there is none) the one with the lowest loss.

    Args:
        steps: number of steps, from 1.
        step: size of one step in pixels; none is eps / steps.
        momentum: share of the direction that is kept from step to step, from 0.  Each new gradient is added in units of
            its mean absolute value.
        norm: norm of the budget and of the steps, linf or l2.
        early_stop: leave a picture alone once it meets the goal.  It is off by default, because a picture that is to
            fool other models must go on.

    Source: Dong et al. 2018, algorithm 1; in L2 section 3.3.

    On a linear model all gradients agree:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> mi_fgsm(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=0.25, steps=4).tolist()
    [[[[0.25, 0.75]]]]
    """
    if steps < 1 or momentum < 0:
        raise Refused(f"mi-fgsm(steps={steps}, momentum={momentum:g}): steps must be at least 1, momentum at least 0")
    size = eps / steps if step is None else step
    return descend(model, x, goal, eps=eps, steps=steps, step=size, momentum=momentum, norm=norm, early_stop=early_stop)
