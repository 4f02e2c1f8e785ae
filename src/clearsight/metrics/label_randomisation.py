"""Adebayo et al. 2018, arXiv:1810.03292, section 5."""

from collections.abc import Callable

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.places import occupied
from clearsight.core.targets import Target
from clearsight.metrics.common.likeness import Likeness, likeness


@method(paper="arXiv:1810.03292", claims="lower-is-better judges-the-explainer")
def label_randomisation(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    again: Callable[[Model, Tensor], Tensor],
    other: Model,
    by: Likeness = "spearman",
    magnitude: bool = False,
) -> Tensor:
    """Likeness of the map to that of a network which was trained on labels drawn at random: low is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  other: a network of the same kind, trained in the same way on the
    same pictures with their labels shuffled, which knows nothing of their classes.  The number is 0 where the map of
    the other network is constant, and nan where the map itself is.

    Args:
        by: how likeness is measured: spearman, the magnitude of the correlation of the places' ranks, or ssim, the
            magnitude of SSIM.
        magnitude: compare |map| instead of the map.

    Source: Adebayo et al. 2018, section 5.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> from clearsight.runner.run import measure
    >>> one, other = linear([[2.0, 1.0, 4.0], [0.0] * 3]), linear([[4.0, 2.0, 1.0], [0.0] * 3])
    >>> x, maps = torch.ones(1, 1, 1, 3), torch.tensor([[[2.0, 1.0, 4.0]]])
    >>> measure(one, x, maps, "label-randomisation", ClassScore(0), method="gradient-x-input", other=other).item()
    0.5
    """
    return likeness(maps, again(other, x), by, magnitude, occupied(model, x)).abs()
