"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.corruptions.common.severity import constants

_SMALL = (0.05, 0.1, 0.15, 0.2, 0.3)
_LARGE = (0.1, 0.2, 0.3, 0.4, 0.5)


@method(paper="arXiv:1903.12261", claims="common quick")
def brightness(x: Tensor, *, severity: int = 3) -> Tensor:
    """Too much daylight: the value of every pixel in the colour space HSV is raised.

    x (B, C, H, W) in [0, 1] -> the same shape.  Hue and saturation stay, so that all channels of a pixel grow by one
    factor; black, which has no hue, becomes grey.

    Args:
        severity: 1 to 5; the value is raised by 0.1 to 0.5 (ImageNet-C), or 0.05 to 0.3 where the shorter side is below
            84 pixels (CIFAR-10-C), but to no more than 1.

    Source: Hendrycks & Dietterich 2019, section 3.1.

    >>> brightness(torch.tensor([0.2, 0.4, 0.1]).view(1, 3, 1, 1), severity=4).flatten().tolist()
    [0.30000001192092896, 0.6000000238418579, 0.15000000596046448]
    """
    more, _ = constants(x, severity, _SMALL, _LARGE)
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp_min(torch.finfo(x.dtype).tiny)), raised).clamp(0, 1)
