"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.severity import constants

_SMALL = (500.0, 250.0, 100.0, 75.0, 50.0)
_LARGE = (60.0, 25.0, 12.0, 5.0, 3.0)


@method(paper="arXiv:1903.12261", claims="common stochastic")
def shot_noise(x: Tensor, *, severity: int = 3) -> Tensor:
    """Noise of light itself: each pixel is a count of so few photons that chance shows.

    x (B, C, H, W) in [0, 1] -> the same shape.  Counts are Poisson, and those of all severities come from the same
    draws.

    Args:
        severity: 1 to 5; white is 60 to 3 photons (ImageNet-C), or 500 to 50 where the shorter side is below 84 pixels
            (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1.

    Of a white of 500 photons the standard deviation is the square root of 500, in 500ths:

    >>> x = torch.full((1, 1, 60, 60), 0.5)
    >>> abs(float(shot_noise(x, severity=1).std()) - (0.5 / 500) ** 0.5) < 0.002
    True
    """
    photons, _ = constants(x, severity, _SMALL, _LARGE)
    return (poisson(x.double() * photons, rng.uniform(x.double())) / photons).clamp(0, 1).to(x.dtype)


def poisson(mean: Tensor, chance: Tensor) -> Tensor:
    """The number whose cumulative Poisson probability first exceeds each chance in [0, 1); float64, of any shape.

    >>> poisson(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), torch.tensor([0.9, 0.36, 0.37])).tolist()
    [0.0, 0.0, 1.0]
    """
    term = torch.exp(-mean)
    total, count = term.clone(), torch.zeros_like(mean)
    most = mean + 12 * mean.sqrt() + 20  # the probability beyond it is below rounding error
    for k in range(1, int(most.max()) + 1 if mean.numel() else 1):
        more = (chance >= total) & (k <= most)
        if not bool(more.any()):
            break
        count += more
        term = term * mean / k
        total += term
    return count
