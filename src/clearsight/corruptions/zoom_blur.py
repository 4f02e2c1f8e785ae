"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.corruptions.common.resampling import zoomed
from clearsight.corruptions.common.severity import constants

# step between zoom factors, and their number, beginning at 1
_SMALL = ((0.01, 6), (0.01, 11), (0.01, 16), (0.01, 21), (0.01, 26))
_LARGE = ((0.01, 11), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11))


@method(paper="arXiv:1903.12261", claims="common")
def zoom_blur(x: Tensor, *, severity: int = 3) -> Tensor:
    """A camera that comes nearer while it exposes: the mean of the picture and of larger and larger views of it.

    x (B, C, H, W) in [0, 1] -> the same shape.  Views are bilinear and about the centre.  The picture itself counts
    twice, as in the published program.

    Args:
        severity: 1 to 5; the largest view is 1.10 to 1.30 times as large (ImageNet-C), or 1.05 to 1.25 where the
            shorter side is below 84 pixels (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1.

    One colour stays as it is:

    >>> import torch
    >>> bool((zoom_blur(torch.full((1, 1, 9, 9), 0.5)) - 0.5).abs().max() < 1e-6)
    True
    """
    (step, views), _ = constants(x, severity, _SMALL, _LARGE)
    total = x.clone()
    for k in range(views):
        total += zoomed(x, 1 + k * step)
    return (total / (views + 1)).clamp(0, 1)
