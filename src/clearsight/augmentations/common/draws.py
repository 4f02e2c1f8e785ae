"""Random numbers for each picture, what is drawn with them (boxes, partners), and the ranges of options."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.special import betaincinv
from torch import Tensor

from clearsight.core import rng
from clearsight.errors import Refused


def chances(x: Tensor, n: int) -> Tensor:
    """n numbers from [0, 1) for each picture of x (B, ...): (B, n) float64 on the CPU."""
    return rng.uniform(torch.empty(len(x), n, dtype=torch.float64))


def within(low: float, high: float, **options: float) -> None:
    """Refuse options outside [low, high], and those that are no number."""
    for name, value in options.items():
        if not low <= value <= high:
            raise Refused(f"{name} must be from {low:g} to {high:g}, not {value:g}")


def between(low: float, high: float, chance: float) -> float:
    """The number that lies a share of the way from low to high."""
    return low + (high - low) * chance


def beta(chance: Tensor, alpha: float) -> Tensor:
    """Uniform numbers turned into numbers of the symmetric Beta distribution, by the inverse of its cumulative one.

    >>> beta(torch.tensor([0.0, 0.25, 0.5], dtype=torch.float64), 1.0).tolist()
    [0.0, 0.25, 0.5]
    """
    return torch.from_numpy(betaincinv(alpha, alpha, chance.numpy()))


def box(chance: Tensor, picture: Sequence[int], low: float, high: float, ratio: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) in whole pixels of a box in a picture (height, width), from four numbers, chance (4,).

    Its share of the area is uniform in [low, high] and its width / height log-uniform in [ratio, 1 / ratio], of those
    that fit inside; where none does, because the picture is long and thin, the area is bounded by what fits.  Nothing
    is drawn again, so that large boxes are no rarer than small ones.

    Half of the area, twice as wide as high, in the lower left corner:

    >>> box(torch.tensor([0.5, 1.0, 0.99, 0.0]), (40, 40), 0.0, 1.0, 0.5)
    (20, 0, 20, 40)
    """
    height, width = picture
    area, shape, down, right = chance.tolist()
    long = width / height
    most = min(high, long / ratio, 1 / (long * ratio))
    share = between(min(low, most), most, area)
    least, greatest = max(ratio, share * long), min(1 / ratio, long / share if share else math.inf)
    stretch = math.exp(between(math.log(least), math.log(max(greatest, least)), shape))
    h = min(max(round(math.sqrt(share * height * width / stretch)), 1), height)
    w = min(max(round(math.sqrt(share * height * width * stretch)), 1), width)
    return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w


def partners(key: Tensor) -> Tensor:
    """The number of another picture for each, key (B,) -> (B,): the one whose key is the next greater one, in a ring.

    Each picture is the partner of exactly one, and of itself only where it is alone.

    >>> partners(torch.tensor([0.1, 0.9, 0.5])).tolist()
    [2, 0, 1]
    """
    order = key.argsort(stable=True)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    return partner
