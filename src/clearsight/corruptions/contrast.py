"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.corruptions.common.severity import constants

_SMALL = (0.75, 0.5, 0.4, 0.3, 0.15)
_LARGE = (0.4, 0.3, 0.2, 0.1, 0.05)


@method(paper="arXiv:1903.12261", claims="common quick")
def contrast(x: Tensor, *, severity: int = 3) -> Tensor:
    """A flat picture: every pixel comes nearer to the mean of its channel.

    x (B, C, H, W) in [0, 1] -> the same shape.

    Args:
        severity: 1 to 5; 0.4 to 0.05 of the contrast is left (ImageNet-C), or 0.75 to 0.15 where the shorter side is
            below 84 pixels (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1.

    >>> import torch
    >>> contrast(torch.tensor([[[[0.0, 1.0]]]]), severity=2).tolist()
    [[[[0.25, 0.75]]]]
    """
    left, _ = constants(x, severity, _SMALL, _LARGE)
    mean = x.mean((2, 3), keepdim=True)
    return ((x - mean) * left + mean).clamp(0, 1)
