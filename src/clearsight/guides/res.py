"""Gao, Sun, Bai, Gu, Hong & Zhao 2022, arXiv:2206.13413, with the Gaussian imputation (RES-G)."""

from __future__ import annotations

from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.guides.common.maps import TINY, at_places, class_activation, from_zero

_STEEP = 5.0  # of the hyperbolic tangent that stands for "above the threshold"


@method(paper="arXiv:2206.13413")
def res(
    step: TrainingStep,
    x: Tensor,
    y: Tensor,
    inside: Tensor,
    *,
    weight: float = 1.0,
    slack: float = 0.1,
    layer: str = "auto",
) -> Tensor:
    """Robust explanation supervision: the map agrees with an annotation whose edge and whose size may be off.

    x (B, C, *S) in [0, 1], y (B, K), inside (B, 1, *S), 1 where the answer may look -> (B,), weight times the sum of
    two terms, over the places of a layer.  First, the mean distance between the annotation, +1 inside and -1 outside,
    and tanh(5 (map - a)), of which slack is free; a is the threshold that parts inside from outside best in a picture.
    Second, the mean distance between the map and the blurred annotation.  The map is Grad-CAM, scaled to 0 to 1.

    Args:
        weight: factor of the penalty, from 0.
        slack: mean distance that costs nothing, for annotations that are not exact, from 0 to 2.
        layer: name of the module whose feature maps are guided; "auto" takes the last one before pooling.

    Refused: numbers below 0, and layers that give no feature maps.

    Source: Gao et al. 2022: slack and threshold in the first term, the imputation by a Gaussian in the second.  Their
    threshold is that of a batch, here each picture has its own.

    A map of 1 and 0 is parted by a threshold of 1, so its two distances to +1 and -1 are 1 and 0:

    >>> import torch
    >>> from clearsight.testing import pooled, training_step
    >>> step = training_step(pooled([[4.0], [0.0]]))
    >>> x, inside = torch.tensor([[[[1.0, 0.0]]]], requires_grad=True), torch.tensor([[[[1.0, 0.0]]]])
    >>> y = torch.tensor([[1.0, 0.0]])
    >>> round((res(step, x, y, inside, slack=0.1) - res(step, x, y, inside, slack=2.0)).item(), 4)  # (1 + 0) / 2 - 0.1
    0.4
    """
    from_zero("res", weight=weight, slack=slack)
    cam = _to_one(class_activation(step, x, y, layer))
    wanted = at_places(inside, cam.shape[1:])
    above = (_STEEP * (cam - parting_value(cam, wanted))).tanh()
    hard = (above - (2 * wanted - 1)).abs().flatten(1).mean(1)
    soft = (cam - _to_one(_blurred(wanted))).abs().flatten(1).mean(1)
    return weight * ((hard - slack).relu() + soft)


def _to_one(maps: Tensor) -> Tensor:
    """Maps (B, *s), each scaled to 0 to 1; 0 where they are flat."""
    flat = maps.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low).clamp_min(TINY)).view_as(maps)


def parting_value(maps: Tensor, wanted: Tensor) -> Tensor:
    """(B, 1, ...): the value of each map at or above which there is most of the inside and least of the outside."""
    values, order = maps.detach().flatten(1).sort(1, descending=True)
    hit = wanted.flatten(1).gather(1, order)
    inside = hit.cumsum(1) / hit.sum(1, keepdim=True).clamp_min(TINY)
    outside = (1 - hit).cumsum(1) / (1 - hit).sum(1, keepdim=True).clamp_min(TINY)
    best = (inside - outside).argmax(1, keepdim=True)
    return values.gather(1, best).view(-1, *[1] * (maps.dim() - 1))


def _blurred(maps: Tensor) -> Tensor:
    """Maps (B, *s) under a Gaussian of three places along each axis (1/4, 1/2, 1/4)."""
    n = maps.dim() - 1
    kernel = maps.new_tensor([0.25, 0.5, 0.25])
    convolve = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[n - 1]
    blurred = maps[:, None]
    for axis in range(n):
        shape = [3 if i == axis else 1 for i in range(n)]
        pad = [1 if i == axis else 0 for i in range(n)]
        blurred = convolve(blurred, kernel.view(1, 1, *shape), padding=pad)
    return blurred[:, 0]
