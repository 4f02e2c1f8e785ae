"""CIPA DC-008 (Exif), section 4.5: a file holds a small JPEG of itself beside the picture."""

import torch
from PIL import Image
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.jpeg import through_jpeg
from clearsight.corruptions.common.resampling import resized
from clearsight.corruptions.common.severity import graded

_SHARES = (0.7, 0.5, 0.35, 0.25, 0.18)
_QUALITY = 75  # Pillow's default


@method(paper="CIPA DC-008")
def thumbnail(x: Tensor, *, severity: int = 3) -> Tensor:
    """The small preview instead of the picture: made smaller, saved as a JPEG, and enlarged again.

    x (B, C, H, W) in [0, 1] -> the same shape.  It is made smaller by a Lanczos filter, saved as a JPEG of quality 75,
    and enlarged by a bicubic filter, both filters Pillow's.

    Args:
        severity: 1 to 5; the preview has 0.7 to 0.18 of the picture's sides, at least 1 pixel.  The shares are this
            package's own; an Exif preview of 160 pixels is 0.7 of 224.

    Source: CIPA DC-008 (Exif), section 4.5.

    One shade of grey stays what it is, but for rounding to 255ths:

    >>> bool((thumbnail(torch.full((1, 1, 40, 40), 0.4)) - 0.4).abs().max() < 0.01)
    True
    """
    share = graded(severity, _SHARES)
    high, wide = x.shape[2:]
    few = (max(1, round(high * share)), max(1, round(wide * share)))
    small = [through_jpeg(resized(z, few, Image.Resampling.LANCZOS).clamp(0, 1), _QUALITY) for z in x]
    return torch.stack([resized(z, (high, wide), Image.Resampling.BICUBIC) for z in small]).clamp(0, 1)
