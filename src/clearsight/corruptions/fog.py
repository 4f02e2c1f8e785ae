"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.clouds import plasma, power_of_two
from clearsight.corruptions.common.severity import constants

# height of the fog, and decay of its finer structure
_SMALL = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
_LARGE = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))


@method(paper="arXiv:1903.12261", claims="common quick stochastic")
def fog(x: Tensor, *, severity: int = 3) -> Tensor:
    """Fog: bright clouds are added, and the picture is darkened so that its white stays what it was.

    x (B, C, H, W) in [0, 1] -> the same shape.  The clouds are a plasma fractal by the diamond-square algorithm on a
    grid of the next power of two, from the same draws at each severity.

    Args:
        severity: 1 to 5; clouds of height 1.5 to 3 (ImageNet-C), or 0.2 to 1.5 where the shorter side is below 84
            pixels (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1.

    What is black stays black where no light is:

    >>> float(fog(torch.zeros(1, 3, 8, 8)).max())
    0.0
    """
    (much, decay), _ = constants(x, severity, _SMALL, _LARGE)
    high, wide = x.shape[2:]
    n = power_of_two(max(high, wide))
    clouds = plasma(rng.uniform(x.new_empty(len(x), n, n, dtype=torch.float64)), decay)[:, None, :high, :wide]
    white = x.amax((1, 2, 3), keepdim=True)
    return ((x + much * clouds.to(x)) * white / (white + much)).clamp(0, 1)
