"""Zhong, Zheng, Kang, Li & Yang 2017, arXiv:1708.04896, section 3."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import box, chances, within
from clearsight.augmentations.common.geometry import mean_colour
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
    """Erase one rectangle of each picture, or none.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    The place of the rectangle is uniform among those where it fits.

    Args:
        chance: probability that a rectangle is erased, 0 to 1.
        least: least share of the picture's area, 0 to 1; the share is uniform in [least, most].
        most: largest share of the picture's area, 0 to 1.
        ratio: the rectangle's width / height is log-uniform in [ratio, 1 / ratio], of those that fit; 0.01 to 1.
        value: what stands in the rectangle: "noise" (uniform), "mean" (the picture's mean colour) or "black".

    Refused: options outside their ranges, and least above most.

    >>> x = torch.ones(1, 1, 2, 2)
    >>> erasing(x, torch.ones(1, 1), chance=1.0, least=1.0, most=1.0, ratio=1.0, value="black")[0].tolist()
    [[[[0.0, 0.0], [0.0, 0.0]]]]
    """
    within(0, 1, chance=chance, least=least, most=most)
    within(0.01, 1, ratio=ratio)
    if least > most:
        raise Refused(f"least={least:g}, most={most:g}: the share least must not be above the share most")
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
