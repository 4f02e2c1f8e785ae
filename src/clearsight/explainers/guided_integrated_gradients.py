"""Kapishnikov, Venugopalan, Avci, Wedin, Terry & Bolukbasi 2021, arXiv:2106.09788.

How far the path may leave the straight one is bounded as in the authors' published code.
"""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.gradient import pixel_gradients
from clearsight.explainers.common.path import note_residual


@method(paper="arXiv:2106.09788", claims="signed class-sensitive")
def guided_integrated_gradients(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    steps: int = 200,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    baseline: float = 0.0,
) -> Tensor:
    """Integrated gradients on an adaptive path, which first changes the values that the target depends on least.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target.  With more and more steps the map sums to
    target(x) - target(baseline).  The diagnostic "completeness residual" is the sum's error.  It can be larger than the
    sum itself: values that move together move far, and their gradient is taken before the move.

    Args:
        steps: number of gradients on the path.
        fraction: share of a picture's values, those with the smallest gradient, that may move at once; above 0 and up
            to 1.
        max_dist: how far a value may be ahead of or behind the straight path, as a share of its own way, from 0 to 1; 0
            is the straight path, with the gradient taken at the beginning of each step.
        baseline: pixel value of the flat picture that the path starts from (0 is black).

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> guided_integrated_gradients(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[1.5, -2.0]]]
    """
    if steps < 1 or not 0 < fraction <= 1 or not 0 <= max_dist <= 1:
        raise Refused(
            f"guided-integrated-gradients(steps={steps}, fraction={fraction:g}, max_dist={max_dist:g}): steps must be "
            "at least 1, fraction above 0 and at most 1, max_dist from 0 to 1"
        )
    end = x.flatten(1).double()  # 200 small steps must add up, and a value must know when it has arrived
    begin = torch.full_like(x.flatten(1), baseline).double()
    point, total = begin.clone(), torch.zeros_like(end)
    for step in range(steps):  # BatchNorm is not folded: values are chosen by rank, which rounding would change
        g = pixel_gradients(model, point.to(x).view_as(x), target).flatten(1).double()
        before = point
        point = _advance(point, g.abs(), begin, end, (step + 1) / steps, fraction, max_dist)
        total += (point - before) * g
    maps = total.view_as(x).sum(1).to(torch.float32)
    note_residual(model, x, target, torch.tensor(baseline), maps)
    return maps


def _advance(
    point: Tensor, size: Tensor, begin: Tensor, end: Tensor, part: float, fraction: float, max_dist: float
) -> Tensor:
    """One step of the path: on from here (B, N), until no more than 1 - part of the way to the end is left.

    size (B, N): how large the gradient is; the smallest move first, as far as max_dist allows, a fraction at a time.
    """
    way = (end - begin).abs()
    low, high = (begin + (end - begin) * min(max(part + d, 0.0), 1.0) for d in (-max_dist, max_dist))
    late = (point - begin).abs() < (low - begin).abs()
    point = torch.where(late, low, point)
    wanted = way.sum(1) * (1 - part)
    rank = int(fraction * (size.shape[1] - 1)) + 1
    going = torch.arange(len(point), device=point.device)
    while len(going):
        h, top = point[going], high[going]
        excess = (end[going] - h).abs().sum(1) - wanted[going]
        room = (top - h).abs()
        ranked = size[going].masked_fill(room == 0, torch.inf)
        least = (ranked <= ranked.kthvalue(rank, dim=1, keepdim=True).values) & (room > 0)
        able = (room * least).sum(1)
        on = (excess > 1e-9 * way[going].sum(1)) & (able > 0)
        gamma = (excess / able.where(on, torch.ones_like(able))).clamp(max=1)
        moved = torch.where(gamma[:, None] < 1, h + gamma[:, None] * (top - h), top)
        point[going[on]] = torch.where(least, moved, h)[on]
        going = going[on & (gamma == 1)]
    return point
