"""Croce & Hein 2020, arXiv:2003.01690, algorithm 1, with the loss of its section 4."""

from torch import Tensor

from clearsight.attacks._apgd import dlr, restarted
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

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels, norm: linf or l2.  steps: of each of the restarts, all of
    which begin at random points.  rho: the share of steps that must have lowered the loss for the size to be kept.
    early_stop: a picture that meets the goal is left alone.  The best iterate is kept, as by apgd-ce.

    Misclassify takes the untargeted ratio, Become the targeted one, whose y is the best of the other classes.  The
    ratios are made for three classes, the targeted one for four.  With three this one divides by what is left of its
    formula; with two the loss is the difference of the outputs alone.  Refused for a goal that names no classes.

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
