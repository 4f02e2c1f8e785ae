"""Schramowski et al. 2020, arXiv:2001.05371, the right-reason term with Grad-CAM."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.guides.common.maps import at_places, class_activation, from_zero, of_largest


@method(paper="arXiv:2001.05371")
def cam_loss(
    step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor, *, weight: float = 1.0, layer: str = "auto"
) -> Tensor:
    """The class activation of the right answer at one layer should vanish outside the annotation.

    x (B, C, *S) in [0, 1], y (B, K), inside (B, 1, *S), 1 where the answer may look -> (B,), weight times the mean,
    over the places of the layer, of the square of what lies outside of the map.  The map is Grad-CAM as a share of its
    largest value, so the penalty is from 0 to weight.  A place that lies outside in part counts in part.

    It needs no pass beside that of the labels, and goes twice only through what stands behind the layer.

    Args:
        weight: factor of the penalty, from 0.
        layer: name of the module whose feature maps are guided; "auto" takes the last one before pooling.

    Refused: a weight below 0, and layers that give no feature maps.

    Source: Schramowski et al. 2020, the loss with Grad-CAM: the square of the annotation times the map that is scaled
    to 1.  Its sum over places is a mean here, so that the weight means the same for layers of all sizes.

    A map of 1 inside and 0.5 outside:

    >>> import torch
    >>> from clearsight.testing import pooled, training_step
    >>> step = training_step(pooled([[4.0], [0.0]]))
    >>> x, inside = torch.tensor([[[[1.0, 0.5]]]], requires_grad=True), torch.tensor([[[[1.0, 0.0]]]])
    >>> cam_loss(step, x, torch.tensor([[1.0, 0.0]]), inside).tolist()
    [0.125]
    """
    from_zero("cam-loss", weight=weight)
    cam = of_largest(class_activation(step, x, y, layer))
    return weight * ((1 - at_places(inside, cam.shape[1:])) * cam).square().flatten(1).mean(1)
