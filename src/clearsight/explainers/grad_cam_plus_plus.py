"""Chattopadhyay, Sarkar, Howlader & Balasubramanian 2018, arXiv:1710.11063, equation 19.

As there, the coefficients of a channel are not divided by their sum, which the authors' published code does.
"""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.cancellation import must_not_cancel
from clearsight.internals.layers import activations_and_gradients, enlarge


@method(paper="arXiv:1710.11063", claims="class-sensitive needs-convolutions few-passes learnable", name="grad-cam++")
def grad_cam_plus_plus(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of one layer, weighted by their positive gradients, rare ones more, summed, rectified and enlarged.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0.  A channel's weight is the sum over places of alpha times the positive
    gradient, with alpha = g^2 / (2 g^2 + g^3 times the sum of the channel).  This alpha belongs to the target's
    exponential, whose own factor only scales the map and is left out; the map's unit therefore means little.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Refused: divisors of alpha that cancel, where channels sum to less than 0, to what rounding decides.

    One averaged channel of two places with the sum 1 has the gradient 4 / 2 = 2 at both, so alpha = 1 / (2 + 2) and the
    weight is 2 times 1/4 times 2:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> grad_cam_plus_plus(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 1.0]]]]), ClassScore(0)).tolist()
    [[[0.0, 1.0]]]
    """
    a, g = activations_and_gradients(model, x, target, layer)
    places = tuple(range(2, a.dim()))
    below = 2 + g * a.sum(places, keepdim=True)  # both sides divided by g^2, which underflows where g is small
    size = (2 + g.abs() * a.abs().sum(places, keepdim=True)) * (g > 0)  # other places have no weight
    must_not_cancel(model, below, size, "grad-cam++ divides by 2 plus a gradient times the sum of a channel")
    alpha = 1 / below.where(below != 0, torch.ones_like(below))
    weight = (alpha * g.relu()).sum(places, keepdim=True)
    return enlarge((weight * a).sum(1).relu(), x.shape[2:]).float()
