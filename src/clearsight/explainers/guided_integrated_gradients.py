"""Kapishnikov, Venugopalan, Avci, Wedin, Terry & Bolukbasi 2021, arXiv:2106.09788.

How far the path may leave the straight one is bounded as in the authors' published code.
"""

import numpy as np
import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.gradient import pixel_gradients
from clearsight.explainers.common.path import note_residual

BLOCK = 2**16  # values that are looked at together: they and what is worked out from them stay in the processor's cache
LARGEST = torch.finfo(torch.float32).max


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
    begin = torch.full_like(x.flatten(1), baseline).double()
    span = x.flatten(1).double() - begin
    way = span.abs()
    at = torch.zeros_like(span)  # the part of its way that each value has come; 200 small steps must add up
    total = torch.zeros_like(span)
    for step in range(steps):  # BatchNorm is not folded: values are chosen by rank, which rounding would change
        g = pixel_gradients(model, torch.addcmul(begin, at, span).to(x).view_as(x), target).flatten(1)
        before = at.clone()
        _advance(at, g.abs(), way, (step + 1) / steps, fraction, max_dist)
        total.addcmul_(before.neg_().add_(at), g.double())
    maps = total.mul_(span).view_as(x).sum(1).to(torch.float32)
    note_residual(model, x, target, torch.tensor(baseline), maps)
    return maps


def _advance(at: Tensor, size: Tensor, way: Tensor, part: float, fraction: float, max_dist: float) -> None:
    """One step of the path: on from at (B, N), in place, until no more than 1 - part of all ways (B, N) is left.

    at: the part of its way that each value has come.  size (B, N): how large the gradient is; the smallest move first,
    as far as max_dist allows, a fraction at a time.
    """
    low, high = (min(max(part + d, 0.0), 1.0) for d in (-max_dist, max_dist))
    rank = int(fraction * (at.shape[1] - 1)) + 1
    few = max(1, BLOCK // at.shape[1])
    for start in range(0, len(at), few):
        block = slice(start, start + few)
        a, w = at[block].clamp_(min=low), way[block]
        length = w.sum(1)
        enough = 1e-9 * length
        todo = size[block].masked_fill((a >= high).logical_or_(w == 0), torch.inf)  # what may move, by its gradient
        going = torch.ones_like(length)
        while True:
            excess = length * part - torch.linalg.vecdot(w, a)
            least = todo <= _at_rank(todo, rank).clamp_(max=LARGEST)
            moves = least.to(a)
            able = (high - a).mul_(w).mul_(moves).sum(1)
            on = (excess > enough).logical_and_(able > 0).logical_and_(going > 0)
            gamma = (excess / able.where(on, going + 1)).clamp_(max=1).mul_(on)
            a.lerp_(a.new_tensor(high), moves.mul_(gamma[:, None]))
            going = (gamma == 1).to(going)
            if not bool(going.any()):
                break
            todo.masked_fill_(least, torch.inf)


def _at_rank(values: Tensor, rank: int) -> Tensor:
    """The value (B, 1) of that rank, counted from 1, in each row of values (B, N)."""
    if values.is_cpu:  # several times as fast
        return torch.from_numpy(np.partition(values.numpy(), rank - 1, 1)[:, rank - 1 : rank])
    return values.kthvalue(rank, dim=1, keepdim=True).values
