"""Zhang et al. 2018, arXiv:1608.00507, section 4.1."""

from torch import Tensor
from torch.nn import functional as F

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="arXiv:1608.00507", claims="higher-is-better")
def pointing_game(
    model: Model, x: Tensor, target: Target, maps: Tensor, *, regions: Tensor, tolerance: int = 0
) -> Tensor:
    """Whether the map's highest point lies inside the region; chance is the region's share of the area.

    x (B, C, *S) in [0, 1], maps (B, *S), regions (B, *S) bool -> (B,): 1 for a hit, 0 for a miss.  Where several places
    share the highest value it is the share of them inside, so that a flat map scores chance.

    Args:
        tolerance: number of pixels by which the region is widened to all sides; 0 leaves it as it is (the paper allows
            15 in a photo's own resolution).

    Source: Zhang et al. 2018, section 4.1.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> maps, regions = torch.tensor([[[3.0, 1.0, 3.0]]]), torch.tensor([[[True, True, False]]])
    >>> pointing_game(linear([[0.0] * 3] * 2), torch.ones(1, 1, 1, 3), ClassScore(0), maps, regions=regions).tolist()
    [0.5]
    """
    if tolerance:
        pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[regions.dim() - 1]
        regions = pool(regions[:, None].float(), 2 * tolerance + 1, stride=1, padding=tolerance)[:, 0] > 0
    flat = maps.flatten(1)
    highest = flat == flat.amax(1, keepdim=True)
    hits = (highest & regions.flatten(1)).sum(1)
    return hits.float() / highest.sum(1).float()
