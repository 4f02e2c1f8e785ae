"""CIPA DC-008 (Exif), the tag Orientation, which says how the sensor was held."""

import torch
from PIL import Image
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.resampling import resized
from clearsight.corruptions.common.severity import graded


@method(paper="CIPA DC-008", claims="stochastic even")
def orientation(x: Tensor, *, severity: int = 3) -> Tensor:
    """A phone's picture whose orientation tag is ignored: turned by 90 degrees, to the left or to the right.

    x (B, C, H, W) in [0, 1] -> the same shape.  The direction is drawn for each picture.  A picture that is not square
    is then enlarged by Pillow's bilinear filter, and its middle is cut out.

    Args:
        severity: 1 to 5; all the same: a tag is read or it is not.

    Source: CIPA DC-008 (Exif), the tag Orientation.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <...>
    >>> orientation(torch.tensor([[[[0.0, 1.0], [0.25, 0.5]]]])).tolist()  # to the left
    [[[[1.0, 0.5], [0.0, 0.25]]]]
    """
    graded(severity, [1] * 5)
    high, wide = x.shape[2:]
    grown = max(high, wide) / min(high, wide)
    large = (round(wide * grown), round(high * grown))
    top, left = (large[0] - high) // 2, (large[1] - wide) // 2
    out = []
    for picture, chance in zip(x, rng.uniform(x.new_empty(len(x), 1))[:, 0].tolist(), strict=True):
        turned = picture.rot90(1 if chance < 0.5 else -1, (1, 2))
        if high != wide:
            turned = resized(turned.contiguous(), large, Image.Resampling.BILINEAR)
        out.append(turned[:, top : top + high, left : left + wide])
    return torch.stack(out).clamp(0, 1)
