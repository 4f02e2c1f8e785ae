"""Guo, Rana, Cisse & van der Maaten 2018, arXiv:1711.00117, section 4."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.jpeg import through_jpeg
from clearsight.errors import Refused


@method(paper="arXiv:1711.00117")
def jpeg(x: Tensor, *, quality: int = 75) -> Tensor:
    """The picture saved as a JPEG and read again, which drops fine detail and rounds to 8 bits.

    x (B, C, H, W) in [0, 1] -> the same shape.  It is saved by Pillow, which stores colour at half the resolution.

    Args:
        quality: quality of the JPEG, 1 to 100; 75 is that of the paper.

    Refused: a quality outside its range.

    Source: Guo et al. 2018, section 4.

    A grey picture of one value is kept but for rounding to 255ths:

    >>> (jpeg(torch.full((1, 1, 8, 8), 0.4)) * 255).unique().tolist()
    [102.0]
    """
    if not 1 <= quality <= 100:
        raise Refused(f"a quality of {quality}: give 1 to 100")
    return torch.stack([through_jpeg(z, quality) for z in x])
