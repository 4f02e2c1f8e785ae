"""Poppi et al. 2021, arXiv:2104.10252, section 3."""

from collections.abc import Callable

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.metrics.common.harmonic import coherency, harmonic
from clearsight.metrics.common.masked_probability import through
from clearsight.perturbation.map_thresholds import stretched


@method(paper="arXiv:2104.10252", claims="higher-is-better judges-the-explainer")
def adcc(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    again: Callable[[Model, Tensor], Tensor],
) -> Tensor:
    """Average drop, coherency and complexity in one number from 0 to 1, their harmonic mean: high is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  The map is scaled from 0 at its lowest to 1 at its highest place.
    The three parts are the share of the class's probability that is kept when the picture is seen through the map (1 -
    average drop); how well the map agrees with the map of the picture seen through it (coherency); and how little of
    the map there is (1 - its mean).

    The paper combines the means over all pictures.  Here the three parts of each picture are combined, so that each
    picture has a number and an interval can be drawn.

    Source: Poppi et al. 2021, section 3.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> from clearsight.runner.run import measure
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    >>> model = linear([[50.0, 0.0], [0.0, 0.0]])
    >>> round(measure(model, x, maps, "adcc", ClassScore(0), method="gradient-x-input").item(), 4)
    0.75
    """
    soft = stretched(maps)
    before, after = through(model, x, target, maps, 0.0, "mean")
    kept = 1 - (before - after).clamp_min(0) / before.clamp_min(1e-12)
    return harmonic(kept, coherency(model, x, soft, again), 1 - soft.flatten(1).mean(1))
