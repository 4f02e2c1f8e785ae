"""Lee & Han 2022 (Libra-CAM), doi:10.24963/ijcai.2022/442."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.metrics.common.masked_probability import through
from clearsight.perturbation.removal import Fill


@method(paper="doi:10.24963/ijcai.2022/442", claims="higher-is-better")
def average_probability_increase(
    model: Model, x: Tensor, target: Target, maps: Tensor, *, threshold: float | None = 0.0, fill: Fill = "mean"
) -> Tensor:
    """Increase of the class's probability, seen through the map (API): max(0, p' - p).

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  The map is scaled from 0 at its lowest to 1 at its highest place, and
    the picture is seen through it.  p is the class's probability for the whole picture, p' for the picture seen through
    the map.

    Args:
        threshold: percentage of the map's lowest places that are muted altogether, from 0 to 90.  none chooses the best
            one for each picture by the number that is then reported, so the result is optimistic.
        fill: what a muted pixel becomes: mean (of the preprocessing), black, or blur (a strong one).

    Source: Lee & Han 2022 (Libra-CAM).

    Of two pixels that speak against each other only the good one is left: from 1/2 to the sigmoid of 1.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    >>> round(average_probability_increase(linear([[1.0, -1.0], [0.0, 0.0]]), x, ClassScore(0), maps).item(), 4)
    0.2311
    """
    before, after = through(model, x, target, maps, threshold, fill)
    return (after - before).clamp_min(0)
