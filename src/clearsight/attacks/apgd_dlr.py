"""Croce & Hein 2020, arXiv:2003.01690, algorithm 1, with the loss of its section 4."""

from torch import Tensor

from clearsight.attacks.common.apgd import dlr, restarted
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal


@method(paper="arXiv:2003.01690", claims="linf l2 stochastic")
def apgd_dlr(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 100,
    restarts: int = 1,
    rho: float = 0.75,
    early_stop: bool = True,
    norm: Norm = "linf",
) -> Tensor:
    """Auto-PGD on the difference of logits ratio, which no multiplication of the outputs changes.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  The best of all iterates is returned, as by apgd-ce.

    Misclassify takes the untargeted ratio.  Become takes the targeted one, where y is the best of the other classes.
    The untargeted ratio is defined for three classes or more, the targeted one for four or more.  With three classes
    the targeted ratio divides by what is left of its formula.  With two classes the loss is the difference of the
    outputs alone.

    Args:
        steps: gradient steps of each restart, from 1.
        restarts: number of runs, from 1; each begins at a random point.
        rho: share from 0 to 1; at a checkpoint the step size is halved where no more than this share of the steps since
            the last checkpoint lowered the loss.
        early_stop: leave a picture alone once it meets the goal.
        norm: norm of the budget and of the steps, linf or l2.

    Refused: a goal that names no classes.

    Source: Croce & Hein 2020, algorithm 1, with the loss of section 4.

    A linear model ends in the worst corner of the cube:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> apgd_dlr(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=0.25, early_stop=False).tolist()
    [[[[0.25, 0.75]]]]
    """
    return restarted(
        model,
        x,
        goal,
        lambda goal, out, _rows: dlr(goal, out),
        eps=eps,
        steps=steps,
        restarts=restarts,
        rho=rho,
        early_stop=early_stop,
        norm=norm,
    )
