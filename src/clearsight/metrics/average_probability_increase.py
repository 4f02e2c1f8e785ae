"""Lee & Han 2022 (Libra-CAM), doi:10.24963/ijcai.2022/442."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.metrics._seen import through
from clearsight.perturbation.removal import Fill


@method(paper="doi:10.24963/ijcai.2022/442", claims="higher-is-better")
def average_probability_increase(
    model: Classifier, x: Tensor, target: Target, maps: Tensor, *, threshold: float | None = 0.0, fill: Fill = "mean"
) -> Tensor:
    """How much more probable the class is seen through the map, where it is more probable (API): max(0, p' - p).

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  The map runs from 0 at its lowest to 1 at its highest place.
    threshold: per cent of its lowest places that are muted altogether; none: for each picture the one that is best for
    it, which flatters.  fill: what a muted pixel becomes, the mean of the preprocessing, black, or a strong blur.

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
