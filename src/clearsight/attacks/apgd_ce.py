"""Croce & Hein 2020, arXiv:2003.01690, algorithm 1, with the cross-entropy."""

from torch import Tensor

from clearsight.attacks._apgd import restarted
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal


@method(paper="arXiv:2003.01690", claims="linf l2 stochastic")
def apgd_ce(
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
    """Auto-PGD on the cross-entropy: steps with momentum that are halved, for each picture, where they stop helping.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels, norm: linf or l2.  steps: of each of the restarts, all of
    which begin at random points.  rho: the share of steps that must have lowered the loss for the size to be kept.  Of
    all iterates the best is kept: one that meets the goal, and among those (or where there is none) the one with the
    lowest loss.  early_stop: a picture that meets the goal is left alone.

    The loss is that of the goal, log-odds, whose order and whose steepest steps are those of the cross-entropy, but
    whose gradient is not lost where a probability rounds to 1.

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
