"""Relative average drop: Chattopadhay et al. 2018 (Grad-CAM++), arXiv:1710.11063, section 4.1.1."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.metrics.common.masked_probability import through
from clearsight.perturbation.removal import Fill


@method(paper="arXiv:1710.11063", claims="lower-is-better")
def average_drop(
    model: Model, x: Tensor, target: Target, maps: Tensor, *, threshold: float | None = 0.0, fill: Fill = "mean"
) -> Tensor:
    """Relative drop of the class's probability, seen through the map: max(0, p - p') / p.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  The map is scaled from 0 at its lowest to 1 at its highest place, and
    the picture is seen through it.  p is the class's probability for the whole picture, p' for the picture seen through
    the map.

    Args:
        threshold: percentage of the map's lowest places that are muted altogether, from 0 to 90.  none chooses the best
            one for each picture by the number that is then reported, so the result is optimistic.
        fill: what a muted pixel becomes: mean (of the preprocessing), black, or blur (a strong one).

    Source: Chattopadhay et al. 2018 (Grad-CAM++), section 4.1.1.

    Of two pixels that speak for it one is left.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    >>> round(average_drop(linear([[1.0, 1.0], [0.0, 0.0]]), x, ClassScore(0), maps).item(), 4)
    0.17
    """
    before, after = through(model, x, target, maps, threshold, fill)
    return (before - after).clamp_min(0) / before.clamp_min(1e-12)
