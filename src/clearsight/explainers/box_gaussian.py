"""A floor under every map of a box: a map that marks the box has told nothing that the box has not."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.kinds.box_targets import BoxScore
from clearsight.kinds.detector import Detector


@method(paper="control", claims="control")
def box_gaussian(model: Detector, x: Tensor, target: Target, *, sigma: float = 0.25) -> Tensor:
    """A Gaussian in the middle of the box that is explained: a control map that knows the box and nothing else.

    x (B, C, *S) in [0, 1] -> (B, *S), in [0, 1], without a unit.  It wins every pointing game and lies inside the box,
    so that neither tells whether a map does better; deletion and insertion of the box's score do.

    Args:
        sigma: standard deviation of the Gaussian along each axis, as a share of the box's side; above 0.

    Refused: targets that name no box.

    In the middle of a box of 4 pixels, half a pixel from it along both axes, of which a sigma has one:

    >>> from clearsight.testing import tiny_detector
    >>> target = BoxScore(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0]))
    >>> round(box_gaussian(tiny_detector(), torch.zeros(1, 3, 32, 32), target)[0, 1, 1].item(), 4)
    0.7788
    """
    if not sigma > 0:
        raise Refused(f"box-gaussian(sigma={sigma:g}): sigma is a share of the box's side and must be above 0")
    if not isinstance(target, BoxScore):
        raise Refused(f"box-gaussian marks boxes, not {type(target).__name__}: give cs.BoxScore(boxes, classes)")
    boxes = target.boxes.to(x)
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp_min(1)
    height, width = x.shape[2:]
    columns, rows = (torch.arange(n, dtype=x.dtype, device=x.device) + 0.5 for n in (width, height))
    across = ((columns - centre[:, :1]) / (sigma * side[:, :1])).square()
    down = ((rows - centre[:, 1:]) / (sigma * side[:, 1:])).square()
    return torch.exp(-(across[:, None] + down[:, :, None]) / 2)
