"""Simonyan, Vedaldi & Zisserman 2014, arXiv:1312.6034, section 3."""

import torch
from torch import Tensor

from clearsight.classifier import Classifier
from clearsight.layers import gradients
from clearsight.methods import method
from clearsight.targets import Target


@method(paper="arXiv:1312.6034", claims="class-sensitive")
def saliency(model: Classifier, x: Tensor, target: Target) -> Tensor:
    """How steep the target is at each pixel: the largest |gradient| over the channels.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the target per unit of pixel value.

    A network with one weight per pixel is explained by its weights:

    >>> from clearsight.testing import linear
    >>> from clearsight.targets import ClassScore
    >>> saliency(linear([[3.0, -2.0], [0.0, 0.0]]), torch.rand(1, 1, 1, 2), ClassScore(0)).tolist()
    [[[3.0, 2.0]]]
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        score = target(model(x))
    (g,) = gradients(score, x)
    return g.abs().amax(1)
