"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.2, where ImageNet-P turns pictures step by step."""

import math

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.resampling import grid, sampled
from clearsight.corruptions.common.severity import graded

_DEGREES = (4.0, 8.0, 15.0, 22.0, 30.0)


@method(paper="arXiv:1903.12261", claims="stochastic")
def rotation(x: Tensor, *, severity: int = 3) -> Tensor:
    """A camera held askew: the picture is turned about its centre, to the left or to the right.

    x (B, C, H, W) in [0, 1] -> the same shape.  The direction is drawn for each picture.  Pixels are interpolated
    bilinearly.  Beyond its border the picture goes on as in a mirror, because no camera has black corners.

    Args:
        severity: 1 to 5; 4, 8, 15, 22 or 30 degrees, which are this package's own numbers.

    Source: Hendrycks & Dietterich 2019, section 3.2, where ImageNet-P turns pictures step by step.

    One colour stays as it is:

    >>> bool((rotation(torch.full((1, 1, 9, 9), 0.5)) - 0.5).abs().max() < 1e-6)
    True
    """
    angle = math.radians(graded(severity, _DEGREES))
    side = rng.uniform(x.new_empty(len(x), 1)) < 0.5
    rows, columns = grid(x)
    middle, centre = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
    rows, columns = rows - middle, columns - centre
    out = []
    for picture, left in zip(x, side[:, 0].tolist(), strict=True):
        along, across = math.cos(angle), math.sin(angle) * (1 if left else -1)
        out.append(sampled(picture, middle + along * rows + across * columns, centre - across * rows + along * columns))
    return torch.stack(out).clamp(0, 1)
