"""Yeh et al. 2019, arXiv:1901.09392, definition 3.1."""

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused


@method(paper="arXiv:1901.09392", claims="lower-is-better stochastic judges-the-explainer of-pixels")
def max_sensitivity(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    again: Callable[[Model, Tensor], Tensor],
    radius: float = 0.02,
    samples: int = 10,
) -> Tensor:
    """How far the map moves, at most, when pixels move a little: low is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,): the largest norm of the change of the map over several noisy copies of
    the picture, as a share of the norm of the map; nan where the map is 0 everywhere.  A constant map never moves: it
    is good by this measure and says nothing.

    Args:
        radius: maximum of the uniform noise that is added to each pixel (in [0, 1]), above 0.
        samples: number of noisy copies, from 1.

    Source: Yeh et al. 2019, definition 3.1.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> from clearsight.runner.run import measure
    >>> x, maps = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[2.0, 1.0]]])
    >>> measure(linear([[2.0, 1.0], [0.0] * 2]), x, maps, "max-sensitivity", ClassScore(0), method="saliency").item()
    0.0
    """
    if samples < 1 or radius <= 0:
        raise Refused(f"samples={samples}, radius={radius:g}: samples must be at least 1, radius above 0")
    largest = x.new_zeros(len(x))
    for _ in range(samples):
        moved = again(model, (x + radius * (2 * rng.uniform(x) - 1)).clamp(0, 1))
        largest = torch.maximum(largest, (moved - maps).flatten(1).norm(dim=1))
    size: Tensor = maps.flatten(1).norm(dim=1)
    return largest / size
