"""Fu, Hu, Dong, Guo, Gao & Li 2020, arXiv:2008.02312."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.cancellation import must_not_cancel
from clearsight.internals.layers import activations_and_gradients, enlarge


@method(paper="arXiv:2008.02312", claims="class-sensitive needs-convolutions few-passes learnable")
def xgrad_cam(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of one layer, weighted by their gradient where they are active, summed, rectified and enlarged.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the target.  A channel's weight is its gradient averaged over
    the places, each counted by the channel's share of activation there; a channel without activation has no weight.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Refused: activations of a channel that cancel, as in half precision behind a BatchNorm, to what rounding decides.

    Behind one averaged channel of two places the gradient is half the weight:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> xgrad_cam(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 1.0]]]]), ClassScore(0)).tolist()
    [[[0.0, 2.0]]]
    """
    a, g = activations_and_gradients(model, x, target, layer)
    places = tuple(range(2, a.dim()))
    active = a.sum(places, keepdim=True)
    size = a.abs().sum(places, keepdim=True) * (g.abs().amax(places, keepdim=True) > 0)  # others weigh nothing
    must_not_cancel(model, active, size, "xgrad-cam divides by the sum of a channel's activations")
    weight = (g * a).sum(places, keepdim=True) / active.where(active != 0, torch.inf)
    return enlarge((weight * a).sum(1).relu(), x.shape[2:]).float()
