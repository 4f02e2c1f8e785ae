"""Yeh et al. 2019, arXiv:1901.09392, definition 2.1, with the square removal of section 2.2."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.perturbation.removal import Removal, instead, taken


@method(paper="arXiv:1901.09392", claims="lower-is-better stochastic")
def infidelity(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    samples: int = 100,
    side: float = 0.25,
    fill: Removal = "mean",
    scaled: bool = True,
) -> Tensor:
    """Squared difference of the relevance inside a square and what the target loses without it: low is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,), in units of the target squared: the mean over squares at places from a
    seeded draw of (sum of the map inside - (target before - target without the square))^2.

    Args:
        samples: number of squares for each picture, from 1.
        side: side of a square as a share of the picture's sides, above 0 and up to 1.
        fill: what the pixels of a square become: mean (of the preprocessing), black, blur (a strong one), or inpaint
            (solved from the pixels that are left).
        scaled: multiply each map first by the number that suits it best, so that maps in units of their own can be
            compared.  Without it only maps that should sum to the target can be right.

    Source: Yeh et al. 2019, definition 2.1, with the square removal of section 2.2.

    A linear model's own terms are never wrong:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 4), torch.tensor([[[3.0, 1.0, 0.0, 2.0]]])
    >>> infidelity(linear([[3.0, 1.0, 0.0, 2.0], [0.0] * 4]), x, ClassScore(0), maps, scaled=False).item()
    0.0
    """
    if samples < 1 or not 0 < side <= 1:
        raise Refused(f"samples={samples}, side={side:g}: samples must be at least 1, side above 0 and at most 1")
    gone = _squares(x, samples, side)
    nothing = instead(model, x, fill)
    lost = x.new_empty(len(x), samples)
    with torch.no_grad():
        whole = target(model(x))
        for rows, k in pairs(len(x), samples):
            lost[rows, k] = whole[rows] - target[rows](model(taken(x, gone[rows, k], nothing, rows)))
    inside = (maps[:, None] * gone).flatten(2).sum(2)
    if scaled:
        inside = inside * ((inside * lost).sum(1) / inside.square().sum(1).clamp_min(1e-30))[:, None]
    return (inside - lost).square().mean(1)


def _squares(x: Tensor, samples: int, side: float) -> Tensor:
    """Masks (B, samples, *S) bool of one square each, inside the picture, at a place from a seeded draw."""
    axes = x.shape[2:]
    chance = rng.uniform(x.new_empty(len(x), samples, len(axes)))
    gone = torch.ones(len(x), samples, *axes, dtype=torch.bool, device=x.device)
    for i, length in enumerate(axes):
        wide = max(1, round(side * length))
        first = (chance[..., i] * (length - wide + 1)).long()[..., None]
        at = torch.arange(length, device=x.device)
        shape = [len(x), samples, *(length if j == i else 1 for j in range(len(axes)))]
        gone &= ((at >= first) & (at < first + wide)).view(shape)
    return gone
