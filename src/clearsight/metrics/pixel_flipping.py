"""Bach et al. 2015, doi:10.1371/journal.pone.0130140, and Samek et al. 2017, arXiv:1509.06321, section 3."""

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.core import rng
from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.perturbation.removal_order import ranks


@method(paper="arXiv:1509.06321", claims="higher-is-better stochastic of-pixels")
def pixel_flipping(model: Model, x: Tensor, target: Target, maps: Tensor, *, patch: int = 9, steps: int = 30) -> Tensor:
    """How fast the target falls while squares of pixels, the most relevant first, become noise (AOPC): high is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,), in units of the target: the mean over 0, 1, ... steps of the target
    before less the target after that many squares.  Noise is uniform in [0, 1], from a seeded draw that is the same for
    every map of a picture.  Ties are broken by a seeded draw too.

    Args:
        patch: side of the squares in pixels, from 1.  Squares at the border may be smaller, and are ranked by their
            mean relevance.
        steps: number of squares that become noise, from 1 to as many as there are.

    Source: Bach et al. 2015, doi:10.1371/journal.pone.0130140, and Samek et al. 2017, section 3.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    >>> from clearsight.runner.run import measure
    >>> best = measure(linear([[9.0, 1.0], [0.0, 0.0]]), x, maps, "pixel-flipping(patch=1)", ClassScore(0))
    >>> worst = measure(linear([[9.0, 1.0], [0.0, 0.0]]), x, -maps, "pixel-flipping(patch=1)", ClassScore(0))
    >>> bool(best > worst)
    True
    """
    if patch < 1 or steps < 1:
        raise Refused(f"patch={patch}, steps={steps}: patch and steps must be at least 1")
    noise = rng.uniform(x)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[x.dim() - 2]
    sides = tuple(min(patch, length) for length in maps.shape[1:])
    rank = ranks(pool(maps[:, None], sides, ceil_mode=True, count_include_pad=False)[:, 0])
    steps = min(steps, rank[0].numel())
    for axis, side in enumerate(sides, 1):
        rank = rank.repeat_interleave(side, axis).narrow(axis, 0, maps.shape[axis])
    values = x.new_empty(len(x), steps + 1)
    with torch.no_grad():
        for rows, k in pairs(len(x), steps + 1):
            gone = (rank[rows] < k.to(x.device).view(-1, *[1] * (rank.dim() - 1)))[:, None]
            values[rows, k] = target[rows](model(torch.where(gone, noise[rows], x[rows])))
    return values[:, 0] - values.mean(1)
