"""Right class and right place: Russakovsky et al. 2015, arXiv:1409.0575, section 4.2; Zhou et al. 2016 (CAM)."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.map_boxes import box_overlap
from clearsight.core.targets import ClassScore, Target
from clearsight.errors import Refused


@method(paper="arXiv:1409.0575", claims="higher-is-better")
def top_1_localisation(
    model: Classifier,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    regions: Tensor,
    threshold: float = 0.2,
    overlap: float = 0.5,
) -> Tensor:
    """Whether the top class is that of the target and the map's box fits the object's box: 1 or 0.

    x (B, C, *S) in [0, 1], maps (B, *S), regions (B, *S) bool -> (B,): 1 where both hold; nan without a region.  The
    target names the true class, and the maps are to be those of the top class, which is the same where it counts.

    Args:
        threshold: share of the map's highest value from which on a place is bright, from 0 to below 1.
        overlap: intersection over union that is asked for, 0 to 1.

    Refused: a target other than a ClassScore, because no other one names the true class.

    Source: Russakovsky et al. 2015, section 4.2, for the top class alone.

    >>> from clearsight.testing import linear
    >>> maps, regions = torch.tensor([[[5.0, 4.0, 0.9]]]), torch.tensor([[[True, False, False]]])
    >>> model, x = linear([[1.0] * 3, [0.0] * 3]), torch.ones(1, 1, 1, 3)
    >>> [top_1_localisation(model, x, ClassScore(k), maps, regions=regions).item() for k in (0, 1)]
    [1.0, 0.0]
    """
    if not isinstance(target, ClassScore):
        raise Refused("top-1-localisation needs the true classes: give the target ClassScore(y)")
    with torch.no_grad():
        right = model(x).argmax(1) == target.index.to(x.device)
    found = box_overlap(maps, regions, threshold)
    return (right & (found >= overlap)).float().masked_fill(found.isnan(), float("nan"))
