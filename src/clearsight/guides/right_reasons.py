"""Ross, Hughes & Doshi-Velez 2017, arXiv:1703.03717, equation 1."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.guides.common.maps import from_zero
from clearsight.internals.twice_differentiable import twice_differentiable


@method(paper="arXiv:1703.03717")
def right_reasons(
    step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor, *, weight: float = 1.0, logarithm: bool = True
) -> Tensor:
    """Right for the right reasons: the answer may not change with the pixels outside the annotation.

    x (B, C, *S) in [0, 1], inside (B, 1, *S), 1 where the answer may look -> (B,), weight times log(1 + s).  Here s is
    the sum of squares, over the pixels outside, of the gradient of the summed log-probabilities of all classes.

    The size of s depends on the network: it is near 0 in a new one and can be thousands in one that is sure of its
    answers.  The logarithm keeps both terms at one order of magnitude, as the paper asks, whatever the network: it is s
    itself where s is small, and where s is large its slope is that of s as a share of s.

    Args:
        weight: factor of the penalty, from 0.
        logarithm: false for weight times s, as the paper has it; the weight has then to be found for each network.

    Refused: a weight below 0.

    Source: Ross, Hughes & Doshi-Velez 2017, equation 1, second term.  Its inputs are normalised, here the gradient is
    that of pixels in [0, 1]; the logarithm is not in the paper.

    Of two classes with equal logits 3 a - 2 b and 0 the gradient of the summed log-probabilities is 0: raising one
    lowers the other.  At logits 1 and 0 it is (1 - 2 p) (3, -2):

    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]))
    >>> x, inside = torch.tensor([[[[1.0, 1.0]]]], requires_grad=True), torch.tensor([[[[1.0, 0.0]]]])
    >>> penalty = right_reasons(step, x, torch.tensor([[1.0, 0.0]]), inside)
    >>> p = torch.tensor(1.0).sigmoid()
    >>> torch.allclose(penalty, (((1 - 2 * p) * 2) ** 2).log1p())
    True
    """
    from_zero("right-reasons", weight=weight)
    with twice_differentiable():
        total = step.forward(x).log_softmax(1).sum()
    (slope,) = torch.autograd.grad(total, x, create_graph=True)
    steep = ((1 - inside) * slope).square().flatten(1).sum(1)
    return weight * (steep.log1p() if logarithm else steep)
