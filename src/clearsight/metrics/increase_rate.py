"""Lee & Han 2022 (Libra-CAM), doi:10.24963/ijcai.2022/442."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.metrics._seen import through
from clearsight.perturbation.removal import Fill


@method(paper="doi:10.24963/ijcai.2022/442", claims="higher-is-better")
def increase_rate(
    model: Classifier, x: Tensor, target: Target, maps: Tensor, *, threshold: float | None = 0.0, fill: Fill = "mean"
) -> Tensor:
    """Is the class more probable seen through the map (IR)?  1 where it is, 0 where it is not or stays as it was.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,).  The map runs from 0 at its lowest to 1 at its highest place.
    threshold: per cent of its lowest places that are muted altogether; none: for each picture the one that is best for
    it, which flatters.  fill: what a muted pixel becomes, the mean of the preprocessing, black, or a strong blur.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    >>> increase_rate(linear([[1.0, -1.0], [0.0, 0.0]]), x, ClassScore(0), maps).item()
    1.0
    """
    before, after = through(model, x, target, maps, threshold, fill)
    return (after > before).float()
