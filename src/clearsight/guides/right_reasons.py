"""Ross, Hughes & Doshi-Velez 2017, arXiv:1703.03717, equation 1."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused


@method(paper="arXiv:1703.03717")
def right_reasons(step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor, *, weight: float = 10.0) -> Tensor:
    """Right for the right reasons: the answer may not change with the pixels outside the annotation.

    x (B, C, *S) in [0, 1], inside (B, 1, *S), 1 where the answer may look -> (B,), weight times the sum of squares,
    over the pixels outside, of the gradient of the summed log-probabilities of all classes.

    Args:
        weight: factor of the penalty, from 0.  The paper asks that penalty and cross entropy begin at the same order
            of magnitude.

    Refused: a weight below 0.

    Source: Ross, Hughes & Doshi-Velez 2017, equation 1, first term of the second line; its inputs are normalised, here
    the gradient is that of pixels in [0, 1].

    Of two classes with equal logits 3 a - 2 b and 0 the gradient of the summed log-probabilities is 0: raising one
    lowers the other.  At logits 1 and 0 it is (1 - 2 p) (3, -2):

    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]))
    >>> x, inside = torch.tensor([[[[1.0, 1.0]]]], requires_grad=True), torch.tensor([[[[1.0, 0.0]]]])
    >>> penalty = right_reasons(step, x, torch.tensor([[1.0, 0.0]]), inside, weight=1.0)
    >>> p = torch.tensor(1.0).sigmoid()
    >>> torch.allclose(penalty, ((1 - 2 * p) * 2) ** 2)
    True
    """
    if weight < 0:
        raise Refused(f"right-reasons(weight={weight:g}): from 0")
    total = step.forward(x).log_softmax(1).sum()
    (slope,) = torch.autograd.grad(total, x, create_graph=True)
    return weight * ((1 - inside) * slope).square().flatten(1).sum(1)
