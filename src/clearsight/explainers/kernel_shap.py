"""Lundberg & Lee 2017, arXiv:1705.07874, section 4.1 (theorem 2)."""

import math

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.completeness import note_or_refuse
from clearsight.explainers.common.superpixels import Pieces, least_squares, painted, scores_of_subsets, segments
from clearsight.perturbation.removal import flat


@method(paper="arXiv:1705.07874", claims="signed class-sensitive stochastic scores-only")
def kernel_shap(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    samples: int = 1000,
    cells: int = 7,
    pieces: Pieces = "superpixels",
    fill: float | None = None,
) -> Tensor:
    """Shapley values of the pieces of the picture, by a weighted least-squares fit over sets of them.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: each pixel has the value of its whole piece, as
    in lime and occlusion.  Over the pieces (not the pixels) the values sum to target(x) - target(fill everywhere),
    however few the samples are.  The diagnostic "completeness residual" is the sum's error.

    Args:
        samples: sets of pieces that are tried, at least 4; they are drawn by the Shapley kernel in pairs of a set and
            its complement.  Where there are no more sets than samples (eight pieces for 256), all are tried and the
            values are exact.
        cells: approximate number of pieces along each side.
        pieces: "superpixels" of similar colour, or "blocks"; sequences and clips are always cut into blocks.
        fill: pixel value of hidden pieces; none is the mean of the preprocessing.

    Refused: a map whose sum misses more than 1 % of target(x) - target(fill everywhere) plus 0.0001 of the size of the
    target.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> kernel_shap(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0), fill=0.0).round(decimals=3).tolist()
    [[[1.5, -2.0]]]
    """
    if samples < 4:
        raise Refused(
            f"kernel-shap(samples={samples}): samples must be at least 4: the picture, the fill, a subset and its "
            "complement"
        )
    labels = segments(x, cells, pieces)
    chosen = [coalitions(samples, int(piece.max()) + 1, i) for i, piece in enumerate(labels)]
    subsets = [z for z, _ in chosen]
    scores = scores_of_subsets(model, x, target, labels, subsets, flat(model, x[:1], fill))
    values = [constrained_fit(z.double(), w, y) for (z, w), y in zip(chosen, scores, strict=True)]
    gap = [y[0] - y[1] for y in scores]
    missing = torch.stack([v.sum() - g for v, g in zip(values, gap, strict=True)])
    size = torch.stack([y[:2].abs().max() for y in scores])
    note_or_refuse("kernel-shap", missing, torch.stack(gap), size, "use partition-shap")
    return painted(labels, values)


def coalitions(samples: int, m: int, row: int) -> tuple[Tensor, Tensor]:
    """Sets of m pieces (n, m) bool, the full and the empty one first, and how much each weighs in the fit (n,)."""
    ends = torch.tensor([[True], [False]]).expand(2, m)
    if 2**m <= samples:
        z = torch.arange(1, 2**m - 1)[:, None] >> torch.arange(m) & 1
        weight = [(m - 1) / (math.comb(m, s) * s * (m - s)) for s in z.sum(1).tolist()]
        return torch.cat([ends, z.bool()]), torch.tensor([1.0, 1.0, *weight], dtype=torch.float64)
    half = (samples - 1) // 2
    chance = rng.uniform(torch.empty(1, half, m + 1, dtype=torch.float64), torch.tensor([row]))[0]
    sizes = torch.arange(1, m, dtype=torch.float64)
    share = (1 / (sizes * (m - sizes))).cumsum(0)  # the Shapley kernel, summed over the sets of one size
    size = 1 + torch.searchsorted(share / share[-1], chance[:, 0].contiguous(), right=True).clamp_max(m - 2)
    z = chance[:, 1:].argsort(1).argsort(1) < size[:, None]
    z = torch.stack([z, ~z], 1).flatten(0, 1)[: samples - 2]
    return torch.cat([ends, z]), torch.ones(len(z) + 2, dtype=torch.float64)


def constrained_fit(z: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    """The values whose sums over the sets z (n, m) come nearest to y (n,), among those that sum to y[0] - y[1].

    An equal share of the whole, and on top the shortest deviation: it sums to 0, because every row of the fit does.
    """
    m = z.shape[1]
    size = z.sum(1, keepdim=True)
    share = (y[0] - y[1]) / m
    root = weight.sqrt()
    return share + least_squares(root[:, None] * (z - size / m), root * (y - y[1] - size[:, 0] * share))
