"""From a class map to a box: Zhou et al. 2016 (CAM), arXiv:1512.04150, section 3.2."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.map_boxes import box_overlap
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="arXiv:1512.04150", claims="higher-is-better")
def box_iou(
    model: Model, x: Tensor, target: Target, maps: Tensor, *, regions: Tensor, threshold: float = 0.2
) -> Tensor:
    """Intersection over union of the box around the map's largest bright part and the object's box: 0 to 1.

    x (B, C, *S) in [0, 1], maps (B, *S), regions (B, *S) bool -> (B,).  Bright are the places above a share of the
    map's highest value; the part with the most connected places has the box.  Each connected part of the region has a
    box, and the one that fits best counts.  0 for a map with nothing positive, nan without a region.

    Args:
        threshold: share of the map's highest value from which on a place is bright, from 0 to below 1; 0.2 as in the
            paper.

    Source: Zhou et al. 2016 (CAM), section 3.2.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> maps, regions = torch.tensor([[[5.0, 1.0, 0.9]]]), torch.tensor([[[False, True, True]]])
    >>> round(box_iou(linear([[0.0] * 3] * 2), torch.ones(1, 1, 1, 3), ClassScore(0), maps, regions=regions).item(), 4)
    0.3333
    """
    return box_overlap(maps, regions, threshold)
