"""TIFF 6.0, section 4: the tag BitsPerSample says 16, whatever the camera's own bits are."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.corruptions.common.severity import graded

_BITS = (15, 14, 13, 12, 10)


@method(paper="TIFF 6.0")
def bit_depth(x: Tensor, *, severity: int = 3) -> Tensor:
    """Few bits of a camera in a file of 16, read as if they were 16: a dark picture of few shades.

    x (B, C, H, W) in [0, 1] -> the same shape.  The camera's values stand in the file as they are and are divided by
    65535; then they are rounded to 8 bits.

    Args:
        severity: 1 to 5; the camera has 15, 14, 13, 12 or 10 bits, so that white becomes 1/2 to 1/64.

    Source: TIFF 6.0, section 4.

    >>> import torch
    >>> x = torch.tensor([1.0, 0.5, 0.1]).view(1, 3, 1, 1)
    >>> (bit_depth(x, severity=4) * 255).round().flatten().tolist()
    [16.0, 8.0, 2.0]
    """
    top = 2 ** graded(severity, _BITS) - 1
    stored = (x.double() * top).round()
    shades: Tensor = (stored / 65535 * 255).round()
    return shades.to(x.dtype) / 255
