"""Chen, Kornblith, Norouzi & Hinton 2020, arXiv:2002.05709, appendix A."""

import math

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import between, chances, within
from clearsight.core.catalogue import method
from clearsight.core.torchvision_v2 import F

LEAST = 0.1  # pixels of standard deviation: hardly to be seen


@method(paper="arXiv:2002.05709")
def blur(x: Tensor, y: Tensor, *, sigma: float = 2.0, chance: float = 0.5) -> tuple[Tensor, Tensor]:
    """Smooth each picture with a Gaussian, or leave it as it is.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    The standard deviation is drawn for each picture, uniform in [0.1, sigma].  The Gaussian ends after four standard
    deviations, or at the picture's own size.  Beyond its border the picture is mirrored.

    Args:
        sigma: largest standard deviation in pixels, 0.1 to 100.
        chance: probability that a picture is smoothed, 0 to 1.

    Refused: options outside their ranges.

    One colour stays as it is:

    >>> bool((blur(torch.full((1, 1, 3, 3), 0.5), torch.ones(1, 1), chance=1.0)[0] - 0.5).abs().max() < 1e-6)
    True
    """
    within(LEAST, 100, sigma=sigma)
    within(0, 1, chance=chance)
    out = []
    for picture, (often, much) in zip(x, chances(x, 2).tolist(), strict=True):
        width = between(LEAST, sigma, much)
        reach = [min(math.ceil(4 * width), side - 1) for side in reversed(x.shape[2:])]  # along x, along y
        smooth = often < chance
        out.append(F.gaussian_blur(picture, [2 * r + 1 for r in reach], [width, width]) if smooth else picture)
    return torch.stack(out), y
