"""Ancona et al. 2018, arXiv:1711.06104, section 4."""

import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.perturbation.removal import Removal, instead, taken
from clearsight.perturbation.removal_order import ranks


@method(paper="arXiv:1711.06104", claims="higher-is-better stochastic")
def sensitivity_n(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    share: float = 0.1,
    samples: int = 100,
    fill: Removal = "mean",
) -> Tensor:
    """Correlation of the relevance of places drawn at random with what the target loses without them: -1 to 1.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,): Pearson's correlation, over seeded draws of places, of the sum of the
    map over the places and the target's loss when they become the fill; nan where one of the two is the same for every
    draw.

    Args:
        share: share of the places in each draw, between 0 and 1.
        samples: number of draws, from 3.
        fill: what a removed pixel becomes: mean (of the preprocessing), black, blur (a strong one), or inpaint (solved
            from the pixels that are left).

    Source: Ancona et al. 2018, section 4.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 4), torch.tensor([[[3.0, 1.0, 0.0, 2.0]]])
    >>> round(sensitivity_n(linear([[3.0, 1.0, 0.0, 2.0], [0.0] * 4]), x, ClassScore(0), maps, share=0.5).item(), 4)
    1.0
    """
    if samples < 3 or not 0 < share < 1:
        raise Refused(f"samples={samples}, share={share:g}: samples must be at least 3, share above 0 and below 1")
    places = maps[0].numel()
    n = min(max(1, round(share * places)), places - 1)
    nothing = instead(model, x, fill)
    sums, lost = x.new_empty(len(x), samples), x.new_empty(len(x), samples)
    with torch.no_grad():
        whole = target(model(x))
        for k in range(samples):
            gone = ranks(torch.zeros_like(maps)) < n  # all places tie, so this is a seeded draw of n places
            sums[:, k] = (maps * gone).flatten(1).sum(1)
            for rows, _ in pairs(len(x), 1):
                lost[rows, k] = whole[rows] - target[rows](model(taken(x, gone[rows], nothing, rows)))
    return _pearson(sums.double(), lost.double()).to(x)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of a (B, n) with that of b: (B,); nan where one of the two is constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(size > 0, (a * b).sum(1) / size, torch.nan)
