"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.severity import constants

_SMALL = (0.01, 0.02, 0.03, 0.05, 0.07)
_LARGE = (0.03, 0.06, 0.09, 0.17, 0.27)


@method(paper="arXiv:1903.12261", claims="common quick stochastic")
def impulse_noise(x: Tensor, *, severity: int = 3) -> Tensor:
    """Salt and pepper: some values are set to 0 or to 1, as by broken bits.

    x (B, C, H, W) in [0, 1] -> the same shape.  Each channel is drawn by itself.  A value that is hit at one severity
    is hit at all higher ones.

    Args:
        severity: 1 to 5; a share of 0.03 to 0.27 of the values (ImageNet-C), or 0.01 to 0.07 where the shorter side is
            below 84 pixels (CIFAR-10-C), half of them set to 0.

    Source: Hendrycks & Dietterich 2019, section 3.1.

    >>> found = impulse_noise(torch.full((1, 1, 99, 99), 0.5), severity=5)
    >>> sorted(set(found.flatten().tolist()))
    [0.0, 0.5, 1.0]
    """
    share, _ = constants(x, severity, _SMALL, _LARGE)
    chance = rng.uniform(x)
    x = torch.where(chance < share / 2, 0.0, x)
    return torch.where(chance >= 1 - share / 2, 1.0, x)
