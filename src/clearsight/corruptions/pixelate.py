"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from PIL import Image
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.corruptions.common.resampling import resized
from clearsight.corruptions.common.severity import constants

_SMALL = (0.95, 0.9, 0.85, 0.75, 0.65)
_LARGE = (0.6, 0.5, 0.4, 0.3, 0.25)


@method(paper="arXiv:1903.12261", claims="common quick")
def pixelate(x: Tensor, *, severity: int = 3) -> Tensor:
    """A picture of few pixels, enlarged: large squares of one colour.

    x (B, C, H, W) in [0, 1] -> the same shape.  The picture is made smaller and large again, by Pillow's box filter
    both times.

    Args:
        severity: 1 to 5; it is made smaller to 0.6 to 0.25 of its sides (ImageNet-C), or 0.95 to 0.65 where the shorter
            side is below 84 pixels (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1.

    >>> x = torch.eye(100).repeat(2, 1)[None, None]  # a diagonal, twice
    >>> pixelate(x, severity=5)[0, 0, :1, :5].tolist()
    [[0.25, 0.25, 0.25, 0.25, 0.0]]
    """
    share, _ = constants(x, severity, _SMALL, _LARGE)
    high, wide = x.shape[2:]
    few = (max(1, int(high * share)), max(1, int(wide * share)))
    box = Image.Resampling.BOX
    return torch.stack([resized(resized(z, few, box), (high, wide), box) for z in x]).clamp(0, 1)
