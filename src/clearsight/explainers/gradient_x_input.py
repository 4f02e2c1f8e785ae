"""Shrikumar, Greenside, Shcherbina & Kundaje 2016, arXiv:1605.01713."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.gradient import pixel_gradients


@method(paper="arXiv:1605.01713", claims="signed class-sensitive few-passes learnable")
def gradient_x_input(model: Model, x: Tensor, target: Target, *, reference: float = 0.0) -> Tensor:
    """The gradient at each pixel, times the pixel's distance from a reference value.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target.

    Args:
        reference: pixel value that gets no relevance (0 is black).

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> import torch
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> gradient_x_input(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[1.5, -2.0]]]
    """
    return (pixel_gradients(model, x, target) * (x - reference)).sum(1)
