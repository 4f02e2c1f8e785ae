"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.filters import smoothed
from clearsight.corruptions.common.severity import constants

# sigma of the Gaussian before and after, maximum distance of a swap in pixels, number of rounds of swaps
_SMALL = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
_LARGE = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
_ROUNDS = 3


@method(paper="arXiv:1903.12261", claims="common stochastic uneven")
def glass_blur(x: Tensor, *, severity: int = 3) -> Tensor:
    """Frosted glass: neighbouring pixels change places, with a little blur before and after.

    x (B, C, H, W) in [0, 1] -> the same shape.  Pixels are swapped, as the paper has it; its program writes one of the
    two over the other.  Only swaps that lie within the picture are made.

    Args:
        severity: 1 to 5; pixels swap with others up to 1 to 4 pixels away for a shorter side of 224 (ImageNet-C), or 1
            for one of 32 (CIFAR-10-C, where it is below 84); they grow with the side.  In CIFAR-10-C the severities are
            not in order of how much changes.

    Source: Hendrycks & Dietterich 2019, section 3.1.

    One colour stays as it is:

    >>> bool((glass_blur(torch.full((1, 1, 9, 9), 0.5)) - 0.5).abs().max() < 1e-6)
    True
    """
    (sigma, far, rounds), grown = constants(x, severity, _SMALL, _LARGE)
    sigma, reach = sigma * grown, max(1, round(far * grown))
    chance = rng.uniform(x.new_empty(len(x), _ROUNDS, 2, *x.shape[2:], dtype=torch.float64))
    soft = smoothed(x, sigma)
    order = torch.stack([shuffled(c[:rounds], reach) for c in chance])
    mixed = soft.flatten(2).gather(2, order[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return smoothed(mixed, sigma).clamp(0, 1)


def shuffled(chance: Tensor, reach: int) -> Tensor:
    """The source index of each pixel, (H * W,), after rounds of swaps; chance (rounds, 2, H, W) in [0, 1).

    >>> shuffled(torch.tensor([[[[0.5, 0.5, 0.5]] * 3, [[0.5, 0.99, 0.5]] * 3]]), 1).tolist()
    [0, 1, 2, 3, 5, 4, 6, 7, 8]
    """
    high, wide = chance.shape[2:]
    order = list(range(high * wide))
    inner = torch.arange(high * wide).view(high, wide)[reach : high - reach, reach : wide - reach].flatten().flip(0)
    moves = (chance * (2 * reach + 1)).long() - reach
    for down, right in moves.flatten(2):
        partner = inner + down[inner] * wide + right[inner]
        for i, j in zip(inner.tolist(), partner.tolist(), strict=True):
            order[i], order[j] = order[j], order[i]
    return torch.tensor(order)
