"""Xu, Evans & Qi 2018, arXiv:1704.01155, section III-B."""

import torch
from scipy.ndimage import median_filter
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.errors import Refused


@method(paper="arXiv:1704.01155")
def median(x: Tensor, *, size: int = 3) -> Tensor:
    """Every pixel becomes the median of the square around it, channel by channel.

    x (B, C, H, W) in [0, 1] -> the same shape.  Beyond its border the picture goes on as in a mirror that repeats the
    outermost pixels.

    Args:
        size: side of the square in pixels, from 2.  Of an even one the pixel lies right and below of the middle, and
            of the two middle values the larger is taken.

    Refused: a size below 2.

    Source: Xu et al. 2018, section III-B.

    A single bright pixel is gone:

    >>> x = torch.zeros(1, 1, 5, 5)
    >>> x[..., 2, 2] = 1
    >>> float(median(x).max())
    0.0
    """
    if size < 2:
        raise Refused(f"a square of {size}: give at least 2 pixels")
    return torch.from_numpy(median_filter(x.numpy(), size=(1, 1, size, size), mode="reflect"))
