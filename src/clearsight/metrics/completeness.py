"""Sundararajan, Taly & Yan 2017, arXiv:1703.01365, section 3; conservation: Bach et al. 2015."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.perturbation.removal import without


@method(paper="arXiv:1703.01365", claims="lower-is-better judges-the-explainer")
def completeness(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    against: Literal["mean", "black", "blur", "nothing"] = "mean",
) -> Tensor:
    """How far the sum of a map is from the value it should have, as a share of that value: 0 is complete.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,); nan where that value is 0.  Only maps in the units of the target can
    be complete: measure with the target that the maps explain.

    Args:
        against: what the sum should be.  mean, black and blur: the target less the target of a picture without
            anything, whose pixels are the mean of the preprocessing, black, or a strong blur.  nothing: the target
            itself (conservation, of layer-wise relevance).

    Source: Sundararajan, Taly & Yan 2017, section 3; conservation: Bach et al. 2015.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[3.0, 2.0]]])
    >>> completeness(linear([[3.0, 1.0], [0.0, 0.0]]), x, ClassScore(0), maps, against="black").item()
    0.25
    """
    with torch.no_grad():
        due = target(model(x))
        if against != "nothing":
            due = due - target(model(without(model, x, against)))
    return torch.where(due == 0, torch.nan, (maps.flatten(1).sum(1) - due).abs() / due.abs())
