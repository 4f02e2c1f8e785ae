"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.jpeg import through_jpeg
from clearsight.corruptions.common.severity import constants

_SMALL = (80, 65, 58, 50, 40)
_LARGE = (25, 18, 15, 10, 7)


@method(paper="arXiv:1903.12261", claims="common quick")
def jpeg_compression(x: Tensor, *, severity: int = 3) -> Tensor:
    """A picture saved as a JPEG of low quality.

    x (B, C, H, W) in [0, 1] -> the same shape.  It is saved by Pillow, which stores colour at half the resolution.

    Args:
        severity: 1 to 5; quality 25 to 7 of 100 (ImageNet-C), or 80 to 40 where the shorter side is below 84 pixels
            (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1.

    A grey picture of one value is kept but for rounding to 255ths:

    >>> bool((jpeg_compression(torch.full((1, 1, 8, 8), 0.4), severity=1) - 0.4).abs().max() < 0.01)
    True
    """
    quality, _ = constants(x, severity, _SMALL, _LARGE)
    return torch.stack([through_jpeg(z, quality) for z in x])
