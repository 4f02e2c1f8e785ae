"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.severity import constants

_SMALL = (0.04, 0.06, 0.08, 0.09, 0.10)
_LARGE = (0.08, 0.12, 0.18, 0.26, 0.38)


@method(paper="arXiv:1903.12261", claims="common quick stochastic")
def gaussian_noise(x: Tensor, *, severity: int = 3) -> Tensor:
    """Noise as in low light: a normal number is added to every pixel.

    x (B, C, H, W) in [0, 1] -> the same shape.  The draws are the same at each severity.

    Args:
        severity: 1 to 5; a standard deviation of 0.08 to 0.38 (ImageNet-C), or 0.04 to 0.10 where the shorter side is
            below 84 pixels (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1.

    >>> import torch
    >>> x = torch.full((1, 1, 99, 99), 0.5)
    >>> abs(float((gaussian_noise(x, severity=1) - x).std()) - 0.08) < 0.008
    True
    """
    sigma, _ = constants(x, severity, _SMALL, _LARGE)
    return (x + sigma * rng.normal(x)).clamp(0, 1)
