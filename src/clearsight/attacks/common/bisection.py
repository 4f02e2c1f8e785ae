"""Shrink the result of an attack to the smallest change that still meets the goal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.core.best_so_far import BestSoFar
from clearsight.core.model import Model
from clearsight.core.norms import Norm, project


def cut(
    model: Model,
    best: BestSoFar,
    judge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    norm: Norm,
    halvings: int,
) -> Tensor:
    """Project the best version of each picture into the smallest ball in which it still meets the goal, by bisection.

    judge: rows (n,) and their outputs (n, K) -> loss and met, each (n,).  A picture whose best version does not meet
    the goal stays as it is.  Each of the halvings costs one forward pass.
    """
    rows = best.met.nonzero()[:, 0]
    low, high = torch.zeros_like(best.distance[rows]), best.distance[rows]
    x_best, x = best.x[rows], best.clean[rows]
    for _ in range(halvings if len(rows) else 0):
        middle = (low + high) / 2
        x_adv = project(x_best, x, middle, norm)
        with torch.no_grad():
            loss, met = judge(rows, model(x_adv))
        best.see(rows, x_adv, loss, met)
        met = met.to(low.device)
        low, high = torch.where(met, low, middle), torch.where(met, middle, high)
    return best.x
