"""Draelos & Carin 2020, arXiv:2011.08891."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.internals.layers import activations_and_gradients, enlarge


@method(paper="arXiv:2011.08891", claims="class-sensitive needs-convolutions few-passes learnable")
def hires_cam(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of one layer times their own gradient at each place, summed, rectified and enlarged.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the target.  Nothing is averaged over places: where the rest of
    the network is linear, the map shows what each place adds to the target.

    On the score of a detector's box this is ODAM (Zhao & Chan 2023, arXiv:2304.06354) without smoothing the gradient,
    which may be done there: of several equal objects the map lies on the box's own.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Behind one averaged channel of two places the gradient is half the weight:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> import torch
    >>> hires_cam(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 1.0]]]]), ClassScore(0)).tolist()
    [[[0.0, 2.0]]]
    """
    a, g = activations_and_gradients(model, x, target, layer)
    return enlarge((g * a).sum(1).relu(), x.shape[2:]).float()
