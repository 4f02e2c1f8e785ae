"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.2, where ImageNet-P moves pictures step by step."""

import math

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.filters import surrounded
from clearsight.corruptions.common.severity import graded

_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25)


@method(paper="arXiv:1903.12261", claims="stochastic")
def translation(x: Tensor, *, severity: int = 3) -> Tensor:
    """A camera aimed beside the thing: the picture is moved, in any direction.

    x (B, C, H, W) in [0, 1] -> the same shape.  The direction is drawn for each picture.  The move is rounded to whole
    pixels, so that nothing is blurred.  Beyond its border the picture goes on as in a mirror.

    Args:
        severity: 1 to 5; 0.05 to 0.25 of the shorter side, at least 1 pixel; these are this package's own numbers.

    Source: Hendrycks & Dietterich 2019, section 3.2, where ImageNet-P moves pictures step by step.

    One colour stays as it is:

    >>> translation(torch.full((1, 1, 2, 2), 0.5)).flatten().tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    high, wide = x.shape[2:]
    far = max(math.sqrt(2) / 2, graded(severity, _SHARES) * min(high, wide))  # at least one component then rounds to 1
    way = 2 * math.pi * rng.uniform(x.new_empty(len(x), 1, dtype=torch.float64))[:, 0]
    n = math.ceil(far)
    around = surrounded(x, n)
    out = []
    for i, angle in enumerate(way.tolist()):
        top, left = n - round(far * math.sin(angle)), n - round(far * math.cos(angle))
        out.append(around[i, :, top : top + high, left : left + wide])
    return torch.stack(out)
