"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.filters import dragged, trail
from clearsight.corruptions.common.resampling import zoomed
from clearsight.corruptions.common.severity import constants

# mean and deviation of the flakes, their zoom, their threshold, radius and sigma of their trail, weight of the picture
_SMALL = (
    (0.1, 0.2, 1.0, 0.6, 8.0, 3.0, 0.95),
    (0.1, 0.2, 1.0, 0.5, 10.0, 4.0, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10.0, 4.0, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12.0, 6.0, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14.0, 12.0, 0.8),
)
_LARGE = (
    (0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
)
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@method(paper="arXiv:1903.12261", claims="common quick stochastic")
def snow(x: Tensor, *, severity: int = 3) -> Tensor:
    """Falling snow: streaks of flakes over a picture that is bleached towards grey.

    x (B, C, H, W) in [0, 1] -> the same shape.  The flakes fall within 45 degrees of straight down, as one layer and as
    the same layer turned by 180 degrees.

    Args:
        severity: 1 to 5; the constants of ImageNet-C for a shorter side of 224, or of CIFAR-10-C for one of 32 (where
            it is below 84); the size and the trails of flakes grow with the side.

    Source: Hendrycks & Dietterich 2019, section 3.1.

    What is white stays white:

    >>> bool((snow(torch.ones(1, 3, 8, 8)) == 1).all())
    True
    """
    (mean, spread, size, least, radius, sigma, weight), grown = constants(x, severity, _SMALL, _LARGE)
    flakes = mean + spread * rng.normal(x[:, :1])
    angle = 45 + 90 * rng.uniform(x.new_empty(len(x), 1, dtype=torch.float64))[:, 0]
    flakes = zoomed(flakes, max(1.0, size * grown))
    flakes = torch.where(flakes < least, 0.0, flakes).clamp(0, 1)
    flakes = dragged(flakes, trail(radius * grown, sigma * grown), angle)
    grey = (x * x.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True) if x.shape[1] == 3 else x
    bleached = weight * x + (1 - weight) * torch.maximum(x, 1.5 * grey + 0.5)
    return (bleached + flakes + flakes.rot90(2, (2, 3))).clamp(0, 1)
