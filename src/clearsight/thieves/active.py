"""Pal, Gupta, Shukla, Kanade, Shevade & Ganapathy 2020, doi:10.1609/aaai.v34i01.5432: ActiveThief."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.theft import Theft
from clearsight.internals.scores import scores_of

_CANDIDATES = 10  # for each picture that k-centre chooses, of the least certain


@method(paper="doi:10.1609/aaai.v34i01.5432", claims="asks-the-clone", order=2)
def active(theft: Theft, n: int, *, by: Literal["k-centre", "entropy", "both"] = "k-centre") -> Tensor:
    """Ask about the pictures of a pool from which the clone has most to learn.

    Of the pool (P, C, *S) in [0, 1] n pictures (n, C, *S), fewer where it holds no more.  The first ones are drawn at
    random.  Then the clone answers about the pool, and its probabilities choose.

    Args:
        by: "k-centre" takes, one after the other, the picture whose probabilities are furthest from those of all that
            were asked about (greedy k-centre, L2); "entropy" takes the ones that the clone is least certain about;
            "both" takes k-centre among the 10 n least certain.

    Source: Pal et al. 2020: uncertainty, k-centre, and their combination, on the clone's probabilities.

    Of pictures that the clone is certain about to various degrees it asks about the one in doubt:

    >>> from clearsight.testing import theft
    >>> x = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    >>> active(theft(x, weight=[[-20.0], [20.0]], bias=[10.0, -10.0], asked=x[:1]), 1, by="entropy").item()
    0.5
    """
    if not len(theft.asked):
        return theft.take(theft.drawn(n, len(theft.pool)))
    p = scores_of(theft.clone, theft.pool).double().softmax(1)
    unsure = -(p * p.clamp_min(1e-12).log()).sum(1)
    if by == "entropy":
        return theft.take(unsure.topk(min(n, len(p))).indices)
    among = torch.arange(len(p))
    if by == "both":
        among = unsure.topk(min(_CANDIDATES * n, len(p))).indices.sort().values
    centres = scores_of(theft.clone, theft.asked).double().softmax(1)
    return theft.take(among[k_centre(p[among], centres, n)])


def k_centre(points: Tensor, centres: Tensor, n: int) -> Tensor:
    """Rows (n,) of points (P, K), each the furthest from the centres (M, K) and from the rows before it.

    Sener & Savarese 2018, arXiv:1708.00489, algorithm 1.

    >>> k_centre(torch.tensor([[0.0], [1.0], [5.9], [6.0]]), torch.tensor([[0.5]]), 2).tolist()
    [3, 0]
    """
    nearest = torch.cdist(points, centres).amin(1)
    rows = []
    for _ in range(min(n, len(points))):
        row = int(nearest.argmax())
        rows.append(row)
        nearest = torch.minimum(nearest, (points - points[row]).norm(dim=1))
        nearest[row] = -1  # never again, where several are equal
    return torch.tensor(rows, dtype=torch.long)
