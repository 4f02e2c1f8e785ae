"""Ribeiro, Singh & Guestrin 2016, arXiv:1602.04938, sections 3.3 and 3.4, with the choices of the authors' code."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.superpixels import Pieces, least_squares, painted, scores_of_subsets, segments
from clearsight.perturbation.removal import flat


@method(paper="arXiv:1602.04938", claims="signed class-sensitive stochastic scores-only")
def lime(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    samples: int = 500,
    cells: int = 7,
    pieces: Pieces = "superpixels",
    width: float = 0.25,
    ridge: float = 1.0,
    fill: float | None = None,
) -> Tensor:
    """The weights of a linear model of which pieces of the picture are visible, fitted near the picture.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: each pixel has the weight of its whole piece,
    which is the rise of the target when that piece is shown.

    Args:
        samples: versions of the picture that are scored, the picture itself first; in the others each piece is visible
            with probability 1/2.
        cells: approximate number of pieces along each side.
        pieces: "superpixels" of similar colour, or "blocks"; sequences and clips are always cut into blocks.
        width: width of the kernel exp(-d^2 / (2 width^2)), which weighs a version by its cosine distance d from the
            picture; above 0.
        ridge: penalty on the squared weights, 0 or more.  The paper selects a few pieces instead; its code fits them
            with this penalty.
        fill: pixel value of hidden pieces; none is the mean of the preprocessing (the authors' code takes each piece's
            mean colour).

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> lime(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0), ridge=0.0, fill=0.0).round(decimals=3).tolist()
    [[[1.5, -2.0]]]
    """
    if samples < 1 or width <= 0 or ridge < 0:
        raise Refused(
            f"lime(samples={samples}, width={width}, ridge={ridge}): samples must be at least 1, width above 0, ridge "
            "at least 0"
        )
    labels = segments(x, cells, pieces)
    subsets = [_coins(samples, int(piece.max()) + 1, i) for i, piece in enumerate(labels)]
    scores = scores_of_subsets(model, x, target, labels, subsets, flat(model, x[:1], fill))
    return painted(labels, [_fit(z.double(), y, width, ridge) for z, y in zip(subsets, scores, strict=True)])


def _coins(samples: int, pieces: int, row: int) -> Tensor:
    """(samples, pieces) bool; all pieces are in the first."""
    visible = rng.uniform(torch.empty(1, samples, pieces), torch.tensor([row]))[0] < 0.5
    visible[0] = True
    return visible


def _fit(z: Tensor, y: Tensor, width: float, ridge: float) -> Tensor:
    """Weighted ridge regression with a free intercept: z (n, m), y (n,) -> (m,)."""
    cosine = (z.sum(1) / z.shape[1]).sqrt()  # between z and all ones; none visible is at distance 1
    weight = torch.exp(-((1 - cosine) ** 2) / (2 * width**2))
    part = weight / weight.sum()
    root = weight.sqrt()
    a = root[:, None] * (z - part @ z)
    b = root * (y - part @ y)
    penalty = ridge**0.5 * torch.eye(z.shape[1], dtype=z.dtype)
    return least_squares(torch.cat([a, penalty]), torch.cat([b, y.new_zeros(z.shape[1])]))
