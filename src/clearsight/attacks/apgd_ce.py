"""Croce & Hein 2020, arXiv:2003.01690, algorithm 1, with the cross-entropy."""

from torch import Tensor

from clearsight.attacks.common.apgd import restarted
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal


@method(paper="arXiv:2003.01690", claims="linf l2 stochastic")
def apgd_ce(
    model: Model,
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
    """Auto-PGD on the cross-entropy: momentum steps whose size is halved for each picture where they stop helping.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  The best of all iterates is returned: one that meets the
    goal, and among those (or where there is none) the one with the lowest loss.

    The loss is that of the goal, in log-odds.  It orders points and chooses the steepest step as the cross-entropy
    does, but its gradient does not vanish where a probability rounds to 1.

    Args:
        steps: gradient steps of each restart, from 1.
        restarts: number of runs, from 1; each begins at a random point.
        rho: share from 0 to 1; at a checkpoint the step size is halved where no more than this share of the steps since
            the last checkpoint lowered the loss.
        early_stop: leave a picture alone once it meets the goal.
        norm: norm of the budget and of the steps, linf or l2.

    Source: Croce & Hein 2020, algorithm 1.

    A linear model ends in the worst corner of the cube:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> apgd_ce(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=0.25, early_stop=False).tolist()
    [[[[0.25, 0.75]]]]
    """
    return restarted(
        model,
        x,
        goal,
        lambda goal, out, _rows: goal.loss(out),
        eps=eps,
        steps=steps,
        restarts=restarts,
        rho=rho,
        early_stop=early_stop,
        norm=norm,
    )
