"""Simonyan, Vedaldi & Zisserman 2014, arXiv:1312.6034, section 3."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.gradient import pixel_gradients


@method(paper="arXiv:1312.6034", claims="class-sensitive few-passes learnable")
def saliency(model: Model, x: Tensor, target: Target, *, absolute: bool = True) -> Tensor:
    """How steep the target is at each pixel: the largest |gradient| over the channels.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the target per unit of pixel value.

    Args:
        absolute: take the largest absolute gradient over the channels; false gives the gradient with its sign, summed
            over the channels, which methods that average gradients need.

    A network with one weight per pixel is explained by its weights:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> import torch
    >>> model, x = linear([[3.0, -2.0], [0.0, 0.0]]), torch.rand(1, 1, 1, 2)
    >>> saliency(model, x, ClassScore(0)).tolist()
    [[[3.0, 2.0]]]
    >>> saliency(model, x, ClassScore(0), absolute=False).tolist()
    [[[3.0, -2.0]]]
    """
    g = pixel_gradients(model, x, target)
    return g.abs().amax(1) if absolute else g.sum(1)
