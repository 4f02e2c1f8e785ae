"""Li, Wu, Peng, Ernst & Fu 2018, arXiv:1802.10171: guided attention inference (GAIN)."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.running_statistics import statistics_held
from clearsight.core.training_step import TrainingStep
from clearsight.guides.common.maps import at_places, class_activation, from_zero, of_largest
from clearsight.internals.layers import enlarge


@method(paper="arXiv:1802.10171")
def gain(
    step: TrainingStep,
    x: Tensor,
    y: Tensor,
    inside: Tensor,
    *,
    weight: float = 1.0,
    mining: float = 1.0,
    supervision: float = 1.0,
    sharpness: float = 10.0,
    threshold: float = 0.5,
    layer: str = "auto",
) -> Tensor:
    """Guided attention inference: the map should cover all that speaks for the answer, and agree with the annotation.

    x (B, C, *S) in [0, 1], y (B, K), inside (B, 1, *S), 1 where the answer may look -> (B,), weight times the sum of
    two terms.  Attention mining: the probability of the right answer once the map is taken out of the picture, which
    costs a second pass.  Supervision: the mean square of the map less the annotation, over the places of the layer.
    The map is Grad-CAM as a share of its largest value, taken out as x times 1 - sigmoid(sharpness (map - threshold)).

    Args:
        weight: factor of both terms, from 0.
        mining: factor of attention mining, from 0; 0 leaves out its pass.
        supervision: factor of supervision, from 0.  The paper takes 10 on a map that is not scaled to 1.
        sharpness: how sharply the map is cut at the threshold, from 0.
        threshold: value of the map at which half of a pixel is taken out, from 0.
        layer: name of the module whose feature maps are guided; "auto" takes the last one before pooling.

    Refused: numbers below 0, and layers that give no feature maps.

    Source: Li et al. 2018: the map, the picture without it by a sigmoid, attention mining with the probability as the
    score, and the supervision of the map.

    A map of 1 and 0 agrees with the annotation; without its first pixel, the answer has a probability of one half:

    >>> import torch
    >>> from clearsight.testing import pooled, training_step
    >>> step = training_step(pooled([[4.0], [0.0]]))
    >>> x, inside = torch.tensor([[[[1.0, 0.0]]]], requires_grad=True), torch.tensor([[[[1.0, 0.0]]]])
    >>> penalty = gain(step, x, torch.tensor([[1.0, 0.0]]), inside, sharpness=1000.0)
    >>> [round(v, 4) for v in penalty.tolist()]
    [0.5]
    """
    from_zero("gain", weight=weight, mining=mining, supervision=supervision, sharpness=sharpness, threshold=threshold)
    cam = of_largest(class_activation(step, x, y, layer))
    off = (cam - at_places(inside, cam.shape[1:])).square().flatten(1).mean(1)
    if mining == 0:
        return weight * supervision * off
    left = 1 - (sharpness * (enlarge(cam, x.shape[2:]) - threshold)).sigmoid()
    with statistics_held(step.model.net):
        chances = step.model(x.detach() * left[:, None]).softmax(1)
    return weight * (supervision * off + mining * (chances * y).sum(1))
