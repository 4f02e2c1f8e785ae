"""ARCC: ADCC with ROAD in the place of the average drop, arXiv:2605.14641."""

from collections.abc import Callable

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import ClassScore, Target
from clearsight.metrics.common.harmonic import coherency, harmonic
from clearsight.metrics.road import road
from clearsight.perturbation.map_thresholds import stretched


@method(paper="arXiv:2605.14641", claims="higher-is-better stochastic judges-the-explainer")
def arcc(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    again: Callable[[Model, Tensor], Tensor],
    steps: int = 4,
) -> Tensor:
    """ROAD, coherency and complexity in one number from 0 to 1, their harmonic mean: high is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  It is computed as adcc is, but the share of the probability that is
    kept is replaced by twice the ROAD of the target's probability, clipped to 0 to 1.

    Args:
        steps: number of portions of places that ROAD removes, from 1.

    Source: arXiv:2605.14641.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> from clearsight.runner.run import measure
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    >>> model = linear([[50.0, 0.0], [0.0, 0.0]])
    >>> measure(model, x, maps, "arcc", ClassScore(0, of="prob"), method="gradient-x-input").item()  # nothing to lose
    0.0
    """
    soft = stretched(maps)
    chance = ClassScore(target.index, of="prob") if isinstance(target, ClassScore) else target
    faithful = (2 * road(model, x, chance, maps, steps=steps)).clamp(0, 1)
    return harmonic(faithful, coherency(model, x, soft, again), 1 - soft.flatten(1).mean(1))
