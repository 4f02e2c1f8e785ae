"""What an attack found, cut to the smallest change that still does it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.core.best_so_far import BestSoFar
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, project


def cut(
    model: Classifier,
    best: BestSoFar,
    judge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    norm: Norm,
    halvings: int,
) -> Tensor:
    """The best version of each picture, clipped to the smallest ball in which it is still met; by bisection.

    judge: rows (n,) and their outputs (n, K) -> loss and met, each (n,).  A picture that was not met stays as it is.
    It costs a pass forward for each halving.
    """
    rows = best.met.nonzero()[:, 0]
    low, high = torch.zeros_like(best.distance[rows]), best.distance[rows]
    found, x = best.x[rows], best.clean[rows]
    for _ in range(halvings if len(rows) else 0):
        middle = (low + high) / 2
        z = project(found, x, middle, norm)
        with torch.no_grad():
            loss, met = judge(rows, model(z))
        best.see(rows, z, loss, met)
        met = met.to(low.device)
        low, high = torch.where(met, low, middle), torch.where(met, middle, high)
    return best.x
