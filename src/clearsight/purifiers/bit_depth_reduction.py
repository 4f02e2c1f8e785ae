"""Xu, Evans & Qi 2018, arXiv:1704.01155, section III-A."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.errors import Refused


@method(paper="arXiv:1704.01155")
def bit_depth_reduction(x: Tensor, *, bits: int = 3) -> Tensor:
    """Every channel of every pixel rounded to the nearest of a few evenly spaced shades, from 0 to 1.

    x (B, C, H, W) in [0, 1] -> the same shape.

    Args:
        bits: 1 to 8; there are 2 to that power shades.

    Refused: bits outside their range.

    Source: Xu et al. 2018, section III-A.

    Two bits leave the shades 0, 1/3, 2/3 and 1:

    >>> import torch
    >>> x = torch.tensor([0.1, 0.2, 0.6, 0.9]).view(1, 1, 1, 4)
    >>> (bit_depth_reduction(x, bits=2) * 3).round().flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    if not 1 <= bits <= 8:
        raise Refused(f"{bits} bits: give 1 to 8")
    top = 2**bits - 1
    shades: Tensor = (x * top).round() / top
    return shades
