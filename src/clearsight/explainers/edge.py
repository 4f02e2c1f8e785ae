"""A floor under every table: an edge detector looks like an explanation (Adebayo et al. 2018, arXiv:1810.03292)."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="control", claims="control")
def edge(model: Model, x: Tensor, target: Target) -> Tensor:
    """How strong the picture's edges are, by Sobel's filters: a control map that does not use the model.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in pixel values: the length of the gradient that the filters [-1, 0, 1]
    along one axis and [1, 2, 1] along all others find in the mean of the channels.  Borders are repeated.

    A step of 1 between two columns is seen from both, with the weight 1 + 2 + 1:

    >>> edge(None, torch.tensor([[[[0.0, 1.0]]]]), None).tolist()
    [[[4.0, 4.0]]]
    """
    grey = x.mean(1)
    squares = torch.zeros_like(grey)
    for axis in range(1, grey.dim()):
        slope = grey
        for other in range(1, grey.dim()):
            before, middle, after = _neighbours(slope, other)
            slope = after - before if other == axis else before + 2 * middle + after
        squares += slope.square()
    return squares.sqrt()


def _neighbours(maps: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    side = maps.shape[axis]
    before = torch.cat([maps.narrow(axis, 0, 1), maps.narrow(axis, 0, side - 1)], axis)
    after = torch.cat([maps.narrow(axis, 1, side - 1), maps.narrow(axis, side - 1, 1)], axis)
    return before, maps, after
