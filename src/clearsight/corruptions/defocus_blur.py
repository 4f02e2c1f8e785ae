"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import math

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.corruptions.common.filters import bell, filtered
from clearsight.corruptions.common.severity import constants

# radius of the disk, and standard deviation of the Gaussian that smooths its edge, in pixels
_SMALL = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
_LARGE = ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5))


@method(paper="arXiv:1903.12261", claims="common quick")
def defocus_blur(x: Tensor, *, severity: int = 3) -> Tensor:
    """A picture out of focus: each point becomes a disk.

    x (B, C, H, W) in [0, 1] -> the same shape.  The picture goes on beyond its border as in a mirror.

    Args:
        severity: 1 to 5; disks of radius 3 to 10 pixels for a shorter side of 224 (ImageNet-C), or 0.3 to 1.5 for one
            of 32 (CIFAR-10-C, where it is below 84); they grow with the side.

    Source: Hendrycks & Dietterich 2019, section 3.1.

    One colour stays as it is:

    >>> bool((defocus_blur(torch.full((1, 1, 9, 9), 0.5)) - 0.5).abs().max() < 1e-6)
    True
    """
    (radius, edge), grown = constants(x, severity, _SMALL, _LARGE)
    return filtered(x, disk(radius * grown, edge)).clamp(0, 1)


def disk(radius: float, edge: float) -> Tensor:
    """A uniform disk (k, k), k odd, its edge smoothed by a Gaussian of edge pixels; it sums to 1.

    >>> disk(1.0, 0.0).tolist()[2]
    [0.0, 0.2, 0.2, 0.2, 0.0]
    """
    more = 1 if radius <= 8 else 2  # pixels to which the Gaussian reaches
    n = math.floor(radius) + more
    at = torch.arange(-n, n + 1, dtype=torch.float64)
    flat = (at.square()[:, None] + at.square() <= radius * radius).double()
    line = torch.nn.functional.conv1d(
        torch.eye(2 * n + 1).double()[:, None], bell(more, edge)[None, None], padding=more
    )
    spread = line[:, 0]
    even = spread @ flat @ spread.T
    return even / even.sum()
