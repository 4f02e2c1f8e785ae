"""The best of what an attack has tried, picture by picture."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.norms import Norm, perturbation_norm


class BestSoFar:
    """The best version that an attack has tried, for each of the pictures x (B, ...) in [0, 1].

    A version that meets the goal is better than any that does not.  Of those that do, the one with the lower loss is
    better, or, where ``nearest`` names a norm, the one nearer to the picture; of those that do not, that with the lower
    loss.  Until something was seen it is the picture itself.

    x (B, ...), loss (B,), met (B,) bool, distance (B,): of the best.
    """

    def __init__(self, x: Tensor, nearest: Norm | None = None) -> None:
        self.clean, self.nearest = x, nearest
        self.x = x.clone()
        self.loss = torch.full((len(x),), torch.inf, device=x.device)
        self.met = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.distance = torch.full((len(x),), torch.inf, device=x.device)

    def see(self, rows: Tensor, z: Tensor, loss: Tensor, met: Tensor) -> Tensor:
        """Take note of versions z (n, ...) of the pictures rows (n,), each picture at most once -> which are better."""
        loss, met = loss.detach().to(self.loss), met.to(self.met.device)
        rows = rows.to(self.met.device)
        distance = perturbation_norm(z.detach() - self.clean[rows], self.nearest or "linf")
        less = loss < self.loss[rows]
        if self.nearest:
            less = torch.where(met, distance < self.distance[rows], less)
        better = (met & ~self.met[rows]) | ((met == self.met[rows]) & less)
        improved = rows[better]
        self.x[improved], self.loss[improved], self.met[improved] = z.detach()[better], loss[better], met[better]
        self.distance[improved] = distance[better]
        return better
