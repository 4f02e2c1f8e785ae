"""Relevance rank accuracy: Arras, Osman & Samek 2022, arXiv:2003.07258, equation 3."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.perturbation.removal_order import ranks


@method(paper="arXiv:2003.07258", claims="higher-is-better stochastic")
def rank_accuracy(model: Model, x: Tensor, target: Target, maps: Tensor, *, regions: Tensor) -> Tensor:
    """Share of the most relevant places, as many as the region has, lying inside it; chance is its share of the area.

    x (B, C, *S) in [0, 1], maps (B, *S), regions (B, *S) bool -> (B,) in [0, 1]; nan without a region.  Ties are broken
    by a seeded draw.

    Source: Arras, Osman & Samek 2022, equation 3.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> maps, regions = torch.tensor([[[3.0, 1.0, 2.0]]]), torch.tensor([[[True, True, False]]])
    >>> rank_accuracy(linear([[0.0] * 3] * 2), torch.ones(1, 1, 1, 3), ClassScore(0), maps, regions=regions).tolist()
    [0.5]
    """
    count = regions.flatten(1).sum(1)
    first = ranks(maps).flatten(1) < count[:, None]
    return (first & regions.flatten(1)).sum(1).float() / count.float()
