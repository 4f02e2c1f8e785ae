"""Rong et al. 2022 (ROAD), arXiv:2202.00449."""

import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.places import occupied
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.perturbation.removal import instead, taken
from clearsight.perturbation.removal_order import portions, ranks


@method(paper="arXiv:2202.00449", claims="higher-is-better stochastic")
def road(model: Model, x: Tensor, target: Target, maps: Tensor, *, steps: int = 4) -> Tensor:
    """Half of how much more of the target stays without the least relevant places than without the most relevant.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,), in units of the target: the mean over portions of the places of
    (target without the least relevant - target without the most relevant) / 2.  Each portion is an exact count, with
    ties broken by a seeded draw.  Removed places are solved from those around them, with a little noise, so that the
    mask itself tells the network nothing.  Of a text the places are its characters, and removed ones stay empty.

    Args:
        steps: number of portions, from 1: 1/(steps+1), ... steps/(steps+1) of the places.

    Source: Rong et al. 2022.

    Of three pixels whose middle one counts, the middle becomes the mean of the others; without either end it stays:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.tensor([[[[0.0, 0.9, 0.0]]]]), torch.tensor([[[0.0, 3.0, 0.0]]])
    >>> round(road(linear([[0.0, 1.0, 0.0], [0.0] * 3]), x, ClassScore(0), maps, steps=1).item(), 1)
    0.4
    """
    if steps < 1:
        raise Refused(f"steps must be at least 1, not {steps}")
    inside = occupied(model, x)
    rank, nothing = ranks(maps, inside), instead(model, x, "inpaint")
    counts = portions(x, inside, steps + 1)
    places = counts[:, -1]
    total = x.new_zeros(len(x))
    with torch.no_grad():
        for rows, k in pairs(len(x), 2 * steps):
            shape, worst = (-1, *[1] * (rank.dim() - 1)), (k < steps).to(x.device)
            count = counts[rows, 1 + k % steps]
            most = rank[rows] < count.view(shape)
            least = rank[rows] >= (places[rows] - count).view(shape)  # and what is empty as it is
            gone = torch.where(worst.view(shape), most, least)
            values = target[rows](model(taken(x, gone, nothing, rows)))
            total.index_add_(0, rows.to(x.device), torch.where(worst, -values, values) / (2 * steps))
    return total
