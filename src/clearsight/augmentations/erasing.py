"""Zhong, Zheng, Kang, Li & Yang 2017, arXiv:1708.04896, section 3."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.augmentations._common import box, chances, mean_colour, within
from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.errors import Refused


@method(paper="arXiv:1708.04896")
def erasing(
    x: Tensor,
    y: Tensor,
    *,
    chance: float = 0.5,
    least: float = 0.02,
    most: float = 0.33,
    ratio: float = 0.3,
    value: Literal["noise", "mean", "black"] = "noise",
) -> tuple[Tensor, Tensor]:
    """One rectangle of each picture is erased, or none.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y stays.  chance: how often.  The
    rectangle's share of the area is uniform in [least, most], its width / height log-uniform in [ratio, 1 / ratio] of
    those that fit, its place uniform.  value: what stands there afterwards: uniform noise, the picture's mean colour,
    or black.

    >>> x = torch.ones(1, 1, 2, 2)
    >>> erasing(x, torch.ones(1, 1), chance=1.0, least=1.0, most=1.0, ratio=1.0, value="black")[0].tolist()
    [[[[0.0, 0.0], [0.0, 0.0]]]]
    """
    within(0, 1, chance=chance, least=least, most=most)
    within(0.01, 1, ratio=ratio)
    if least > most:
        raise Refused(f"least={least:g}, most={most:g}: the least share of the area is not above the most")
    out = x.clone()
    drawn = chances(x, 5)
    for i in (drawn[:, 0] < chance).nonzero()[:, 0].tolist():
        top, left, h, w = box(drawn[i, 1:], x.shape[2:], least, most, ratio)
        hole = out[i, :, top : top + h, left : left + w]
        if value == "noise":
            hole.copy_(rng.uniform(hole[None], torch.tensor([i]))[0])
        elif value == "mean":
            hole.copy_(mean_colour(x[i]).expand_as(hole))
        else:
            hole.zero_()
    return out, y
