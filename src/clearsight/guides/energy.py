"""Rao, Böhle, Parchami-Araghi & Schiele 2023, arXiv:2303.11932, the energy loss."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.guides.common.maps import TINY, from_zero, learnable_maps


@method(paper="arXiv:2303.11932")
def energy(
    step: TrainingStep,
    x: Tensor,
    y: Tensor,
    inside: Tensor,
    *,
    weight: float = 1.0,
    explainer: str = "gradient-x-input",
) -> Tensor:
    """The energy loss: what speaks for the right answer should stand inside the annotation.

    x (B, C, *S) in [0, 1], y (B, K), inside (B, 1, *S), 1 where the answer may look -> (B,), weight times the share of
    all positive attribution that lies outside, from 0 to weight; 0 where nothing is positive.

    Within the annotation nothing is asked for: a box may be large, and the map need not fill it.

    Args:
        weight: factor of the penalty, from 0.
        explainer: spelling of the method that is guided; any with the claim "learnable", such as grad-cam(layer=...).

    Refused: a weight below 0, and explainers whose map has no gradient in the weights.

    Source: Rao et al. 2023, the energy loss: 1 - energy, which is positive attribution inside over all of it.

    Of the attributions 3 and 1, the latter outside:

    >>> import torch
    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, 1.0], [0.0, 0.0]]))
    >>> x, inside = torch.tensor([[[[1.0, 1.0]]]], requires_grad=True), torch.tensor([[[[1.0, 0.0]]]])
    >>> energy(step, x, torch.tensor([[1.0, 0.0]]), inside).tolist()
    [0.25]
    """
    from_zero("energy", weight=weight)
    positive = learnable_maps(step, x, y, explainer).relu()
    outside = (positive * (1 - inside[:, 0])).flatten(1).sum(1)
    return weight * outside / positive.flatten(1).sum(1).clamp_min(TINY)
