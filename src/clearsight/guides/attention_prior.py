"""Tachibana, Uenoyama & Aihara 2017, arXiv:1710.08969, guided attention."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.guides.common.maps import TINY, from_zero, learnable_maps

_FAR = 1e6  # a squared distance beyond all that there are


@method(paper="arXiv:1710.08969")
def attention_prior(
    step: TrainingStep,
    x: Tensor,
    y: Tensor,
    inside: Tensor,
    *,
    weight: float = 1.0,
    width: float = 0.2,
    at: float | None = None,
    explainer: str = "gradient-x-input",
) -> Tensor:
    """Attribution costs more, the farther it lies from where it is expected: a prior with a soft edge.

    x (B, C, *S) in [0, 1], y (B, K), inside (B, 1, *S), 1 where the answer may look -> (B,), weight times the mean of
    W = 1 - exp(-d^2 / (2 width^2)) over the positive attribution, from 0 to weight.  d is the distance to the nearest
    pixel inside the annotation, or to one place, each axis counted from 0 to 1 over its length.

    Args:
        weight: factor of the penalty, from 0.
        width: distance over which the prior rises, as a share of the side, above 0.
        at: place of the prior along every axis, 0 the start and 1 the end of a sequence, 0.5 the middle of a picture;
            None for the annotation.
        explainer: spelling of the method that is guided; any with the claim "learnable".

    Refused: a weight below 0, a width of 0 or less, a place beyond the picture, and explainers whose map has no
    gradient in the weights.

    Source: Tachibana et al. 2017, the matrix W of guided attention, with g = 0.2 as the width.  There it stands between
    the position n / N of a letter and the position t / T of a sound; here attribution takes the place of attention.

    Of a sequence of two places the second is expected; all attribution lies on the first, half of the length away:

    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, 0.0], [0.0, 0.0]]))
    >>> x, inside = torch.tensor([[[[1.0, 1.0]]]], requires_grad=True), torch.tensor([[[[0.0, 1.0]]]])
    >>> penalty = attention_prior(step, x, torch.tensor([[1.0, 0.0]]), inside)
    >>> torch.allclose(penalty, 1 - torch.tensor([-(0.5**2) / (2 * 0.2**2)]).exp())
    True
    """
    from_zero("attention-prior", weight=weight)
    if not 0 < width < float("inf") or (at is not None and not 0 <= at <= 1):
        raise Refused(f"attention-prior(width={width:g}, at={at}): a width above 0, a place from 0 to 1 or None")
    positive = learnable_maps(step, x, y, explainer).relu()
    far = to_annotation(inside[:, 0]) if at is None else _to_place(inside[:, 0], at)
    prior = 1 - (-far / (2 * width**2)).exp()
    return weight * (positive * prior).flatten(1).sum(1) / positive.flatten(1).sum(1).clamp_min(TINY)


def _centres(n: int, like: Tensor) -> Tensor:
    return (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n


def _to_place(inside: Tensor, at: float) -> Tensor:
    """The squared distance of each pixel to a place: shaped like inside (B, *S); axes of one pixel have none."""
    far = torch.zeros_like(inside)
    for axis in (i for i in range(1, inside.dim()) if inside.shape[i] > 1):
        shape = [-1 if i == axis else 1 for i in range(inside.dim())]
        far = far + (_centres(inside.shape[axis], inside) - at).square().view(shape)
    return far


def to_annotation(inside: Tensor) -> Tensor:
    """The squared distance of each pixel to the nearest one that is more inside than outside; 0 where none is.

    Axis by axis: the least of what is known so far plus the squared distance along the axis, one step further at a
    time, until a step alone is farther than anything that is found.  The axis is put first, so that what is a step
    further lies in one piece.
    """
    far = torch.where(inside > 0.5, 0.0, _FAR)
    for axis in range(1, inside.dim()):
        far = far.movedim(axis, 0).contiguous()
        n, nearest, further = len(far), far.clone(), torch.empty_like(far)
        marked = far.amin(0) < _FAR / 2  # the lines with anything to find
        for k in range(1, n):
            apart = (k / n) ** 2
            if k % 8 == 1 and not bool((nearest.amax(0)[marked] > apart).any()):
                break
            torch.add(far, apart, out=further)
            for here, there in ((slice(n - k), slice(k, n)), (slice(k, n), slice(n - k))):
                torch.minimum(nearest[here], further[there], out=nearest[here])
        far = nearest.movedim(0, axis)
    return torch.where(far < _FAR / 2, far, 0.0)
