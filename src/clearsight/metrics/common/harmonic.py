"""The parts that ADCC and ARCC share: the coherency of a map that is scaled to 0 to 1, and the harmonic mean."""

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.perturbation.map_thresholds import mask_by_map, stretched


def coherency(model: Model, x: Tensor, soft: Tensor, again: Callable[[Model, Tensor], Tensor]) -> Tensor:
    """(r + 1) / 2 for Pearson's r of the map and that of the picture seen through it, (B,); 1/2 if one is constant."""
    inner = stretched(again(model, mask_by_map(model, x, soft).clamp(0, 1))).flatten(1).double()
    outer = soft.flatten(1).double()
    a, b = outer - outer.mean(1, keepdim=True), inner - inner.mean(1, keepdim=True)
    size = a.norm(dim=1) * b.norm(dim=1)
    return (torch.where(size > 0, (a * b).sum(1) / size, 0) + 1) / 2


def harmonic(*parts: Tensor) -> Tensor:
    """The harmonic mean of shares (B,); 0 where one of them is 0.

    >>> harmonic(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 1.0])).tolist()
    [0.6666666865348816, 0.0]
    """
    inverse = sum((1 / part.double() for part in parts), torch.zeros(1, dtype=torch.float64, device=parts[0].device))
    return (len(parts) / inverse).float()
