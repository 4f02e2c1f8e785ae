"""Localisation with the class known: Singh & Lee 2017 (Hide-and-Seek), arXiv:1704.04232, section 4.1."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.map_boxes import box_overlap
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="arXiv:1704.04232", claims="higher-is-better")
def gt_known_localisation(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    regions: Tensor,
    threshold: float = 0.2,
    overlap: float = 0.5,
) -> Tensor:
    """Whether the map's box fits the object's box, whatever the answer is: 1 or 0 (GT-known localisation).

    x (B, C, *S) in [0, 1], maps (B, *S), regions (B, *S) bool -> (B,): 1 where box-iou is at least the overlap; nan
    without a region.  The maps are to be those of the true class.

    Args:
        threshold: share of the map's highest value from which on a place is bright, from 0 to below 1.
        overlap: intersection over union that is asked for, 0 to 1.

    Source: Singh & Lee 2017, section 4.1.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> model, x = linear([[0.0] * 3] * 2), torch.ones(1, 1, 1, 3)
    >>> maps, regions = torch.tensor([[[5.0, 4.0, 0.9]]]), torch.tensor([[[True, False, False]]])
    >>> gt_known_localisation(model, x, ClassScore(0), maps, regions=regions).tolist()  # IoU 1/2
    [1.0]
    """
    found = box_overlap(maps, regions, threshold)
    return (found >= overlap).float().masked_fill(found.isnan(), float("nan"))
