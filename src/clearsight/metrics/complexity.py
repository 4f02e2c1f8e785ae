"""Bhatt, Weller & Moura 2020, arXiv:2005.00631, section 3.3."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="arXiv:2005.00631", claims="lower-is-better judges-the-map-alone")
def complexity(model: Model, x: Tensor, target: Target, maps: Tensor) -> Tensor:
    """How widely the map is spread: the entropy of its magnitudes, 0 for one place to log(places): low is simple.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,) in nats; nan where the map is 0 everywhere.  A simple map need not be
    true to the network.

    Source: Bhatt, Weller & Moura 2020, section 3.3.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> maps = torch.tensor([[[2.0, 0.0, -2.0, 0.0]]])
    >>> round(complexity(linear([[0.0] * 4] * 2), torch.ones(1, 1, 1, 4), ClassScore(0), maps).exp().item(), 4)
    2.0
    """
    share = maps.flatten(1).double().abs()
    share = share / share.sum(1, keepdim=True)
    entropy: Tensor = -torch.special.xlogy(share, share).sum(1)
    return entropy.float()
