"""Energy-based pointing game: Wang et al. 2020, arXiv:1910.01279, section 4.3; relevance mass: Arras et al. 2022."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="arXiv:1910.01279", claims="higher-is-better")
def relevance_mass(model: Model, x: Tensor, target: Target, maps: Tensor, *, regions: Tensor) -> Tensor:
    """Share of the positive relevance that lies inside the region; chance is the region's share of the area.

    x (B, C, *S) in [0, 1], maps (B, *S), regions (B, *S) bool -> (B,) in [0, 1]; nan where a map has nothing positive.

    Source: Wang et al. 2020 (energy-based pointing game), section 4.3; Arras et al. 2022 (relevance mass).

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> maps, regions = torch.tensor([[[3.0, 1.0, -9.0]]]), torch.tensor([[[True, False, True]]])
    >>> relevance_mass(linear([[0.0] * 3] * 2), torch.ones(1, 1, 1, 3), ClassScore(0), maps, regions=regions).tolist()
    [0.75]
    """
    positive = maps.cpu().clamp(min=0).flatten(1).double()
    inside = (positive * regions.cpu().flatten(1)).sum(1)
    return (inside / positive.sum(1)).float()
