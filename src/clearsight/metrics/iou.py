"""Intersection over union of the thresholded map: Zhou et al. 2016 (CAM), arXiv:1512.04150, section 3.2."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused


@method(paper="arXiv:1512.04150", claims="higher-is-better")
def iou(model: Model, x: Tensor, target: Target, maps: Tensor, *, regions: Tensor, threshold: float = 0.2) -> Tensor:
    """Intersection over union of the region and the places above a share of the map's highest value: 0 to 1.

    x (B, C, *S) in [0, 1], maps (B, *S), regions (B, *S) bool -> (B,): the area inside both divided by the area inside
    at least one of the two.  A map with nothing positive covers nothing and gets 0, or nan where there is no region
    either.

    Args:
        threshold: share of the map's highest value from which on a place is covered, from 0 to below 1; 0.2 as in the
            paper.

    Source: Zhou et al. 2016 (CAM), section 3.2.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> maps, regions = torch.tensor([[[5.0, 1.0, 0.9]]]), torch.tensor([[[False, True, True]]])
    >>> round(iou(linear([[0.0] * 3] * 2), torch.ones(1, 1, 1, 3), ClassScore(0), maps, regions=regions).item(), 4)
    0.3333
    """
    if not 0 <= threshold < 1:
        raise Refused(f"threshold, a share of the highest value, must be at least 0 and below 1, not {threshold:g}")
    flat, inside = maps.flatten(1), regions.flatten(1)
    bright = (flat >= threshold * flat.amax(1, keepdim=True)) & (flat > 0)
    return (bright & inside).sum(1).float() / (bright | inside).sum(1).float()
