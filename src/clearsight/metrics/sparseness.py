"""Chalasani et al. 2020, arXiv:1810.06583, section 4; the index is Gini's, in the form of Hurley & Rickard 2009."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="arXiv:1810.06583", claims="higher-is-better judges-the-map-alone")
def sparseness(model: Model, x: Tensor, target: Target, maps: Tensor) -> Tensor:
    """Gini index of the map's magnitudes: 0 where all places are equal, near 1 where one place holds everything.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,); nan where the map is 0 everywhere.  One place of n gives 1 - 1/n.  A
    sparse map need not be true to the network.

    Source: Chalasani et al. 2020, section 4; the index in the form of Hurley & Rickard 2009.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> maps = torch.tensor([[[0.0, 0.0, -3.0, 0.0]]])
    >>> sparseness(linear([[0.0] * 4] * 2), torch.ones(1, 1, 1, 4), ClassScore(0), maps).item()
    0.75
    """
    rows = maps.flatten(1).double().abs().sort(1).values
    n = rows.shape[1]
    weight = (n - torch.arange(1, n + 1, device=maps.device) + 0.5) / n
    return (1 - 2 * (rows / rows.sum(1, keepdim=True) * weight).sum(1)).float()
