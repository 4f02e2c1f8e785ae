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

    x (B, ...), loss (B,), met (B,) bool: of the best; distance (B,): its distance in that norm, where one is named.
    """

    def __init__(self, x: Tensor, nearest: Norm | None = None) -> None:
        self.clean, self.nearest = x, nearest
        self._best: Tensor | None = None
        self.loss = torch.full((len(x),), torch.inf, device=x.device)
        self.met = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.distance = torch.full((len(x),), torch.inf, device=x.device)

    @property
    def x(self) -> Tensor:
        """The best versions, in memory of their own."""
        if self._best is None:
            self._best = self.clean.clone()
        return self._best

    def see(self, rows: Tensor, z: Tensor, loss: Tensor, met: Tensor) -> Tensor:
        """Take note of versions z (n, ...) of the pictures rows (n,), each picture at most once -> which are better."""
        loss, met, z = loss.detach().to(self.loss), met.to(self.met.device), z.detach()
        rows = rows.to(self.met.device)
        known = self.met[rows]
        less = loss < self.loss[rows]
        if self.nearest:
            distance = perturbation_norm(z - self.clean[rows], self.nearest)
            less = torch.where(met, distance < self.distance[rows], less)
        better = (met & ~known) | ((met == known) & less)
        k = better.nonzero()[:, 0]
        if len(k):
            improved = rows[k]
            if len(k) == len(self.met) and torch.equal(improved, torch.arange(len(k), device=k.device)):
                self._best = (torch.empty_like(self.clean) if self._best is None else self._best).copy_(z)
            else:
                self.x.index_copy_(0, improved, z if len(k) == len(z) else z[k])
            self.loss.index_copy_(0, improved, loss[k])
            self.met.index_copy_(0, improved, met[k])
            if self.nearest:
                self.distance.index_copy_(0, improved, distance[k])
        return better
