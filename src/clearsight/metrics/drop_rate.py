"""Lee & Han 2022 (Libra-CAM), doi:10.24963/ijcai.2022/442."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.metrics.common.masked_probability import through
from clearsight.perturbation.removal import Fill


@method(paper="doi:10.24963/ijcai.2022/442", claims="lower-is-better")
def drop_rate(
    model: Model, x: Tensor, target: Target, maps: Tensor, *, threshold: float | None = 0.0, fill: Fill = "mean"
) -> Tensor:
    """Drop rate (DR): 1 where the class is less probable seen through the map, 0 otherwise.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  The map is scaled from 0 at its lowest to 1 at its highest place, and
    the picture is seen through it.  Where the class's probability stays as it was, the number is 0.

    Args:
        threshold: percentage of the map's lowest places that are muted altogether, from 0 to 90.  none chooses the best
            one for each picture by the number that is then reported, so the result is optimistic.
        fill: what a muted pixel becomes: mean (of the preprocessing), black, or blur (a strong one).

    Source: Lee & Han 2022 (Libra-CAM).

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    >>> drop_rate(linear([[1.0, 1.0], [0.0, 0.0]]), x, ClassScore(0), maps).item()
    1.0
    """
    before, after = through(model, x, target, maps, threshold, fill)
    return (after < before).float()
