"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.filters import dragged, trail
from clearsight.corruptions.common.severity import constants

# radius and standard deviation in pixels
_SMALL = ((6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5))
_LARGE = ((10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0))


@method(paper="arXiv:1903.12261", claims="common quick stochastic")
def motion_blur(x: Tensor, *, severity: int = 3) -> Tensor:
    """A camera that moves while it exposes: each point leaves a fading trail along one line.

    x (B, C, H, W) in [0, 1] -> the same shape.  The trail is half a Gaussian.  Its angle is drawn within 45 degrees of
    the horizontal for each picture, the same at every severity.  The border is repeated.

    Args:
        severity: 1 to 5; the trail's standard deviation is 3 to 15 pixels for a shorter side of 224 (ImageNet-C), or 1
            to 2.5 for one of 32 (CIFAR-10-C, where it is below 84); they grow with the side, and the trail ends after
            twice the radius.

    Source: Hendrycks & Dietterich 2019, section 3.1.

    One colour stays as it is:

    >>> bool((motion_blur(torch.full((1, 1, 9, 9), 0.5)) - 0.5).abs().max() < 1e-6)
    True
    """
    (radius, sigma), grown = constants(x, severity, _SMALL, _LARGE)
    angle = 90 * rng.uniform(x.new_empty(len(x), 1, dtype=torch.float64))[:, 0] - 45
    return dragged(x, trail(radius * grown, sigma * grown), angle).clamp(0, 1)
