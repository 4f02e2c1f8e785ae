"""Guo, Gardner, You, Wilson & Weinberger 2019, arXiv:1905.07121, algorithm 1."""

import math
from typing import Literal

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import method
from clearsight.core.norms import per_picture, project
from clearsight.errors import Refused

LEAST = 8  # minimum number of frequencies along each axis, where there are so many


@method(paper="arXiv:1905.07121", claims="l2 stochastic black-box")
def simba(
    box: BlackBox,
    x: Tensor,
    *,
    eps: float,
    queries: int = 1000,
    step: float | None = None,
    basis: Literal["pixel", "dct"] = "dct",
    low: float = 0.125,
) -> Tensor:
    """SimBA: steps forward or back along one direction after another, kept where the scores show that they help.

    x (B, C, *S) in [0, 1] -> the same shape; eps, in pixels, is the length of the whole change in L2.  Each picture
    takes the directions in a random order of its own until its goal is met.  No direction is repeated before all were
    tried.

    Args:
        queries: number of scores that may be asked for about each picture.
        step: length of each step in L2; none is 0.2 as in the paper, or eps / 8 where that is more.
        basis: pixel takes single values as directions, dct takes cosines over one channel.
        low: share of the frequencies along each axis that dct uses, the lowest ones, above 0 and up to 1; at least 8,
            where there are so many.

    Source: Guo et al. 2019, algorithm 1.

    Less of the first pixel helps, and more of the second:

    >>> from clearsight.testing import linear
    >>> from clearsight.runner.run import attack
    >>> x, y = torch.tensor([[[[0.7, 0.3]]]]), torch.tensor([0])
    >>> attack(linear([[3.0, -2.0], [0.0, 0.0]]), x, y, "simba(basis=pixel, queries=4)", eps=1).x
    tensor([[[[0.5000, 0.5000]]]])
    """
    step = max(0.2, eps / 8) if step is None else step
    if step <= 0 or not 0 < low <= 1:
        raise Refused(f"simba(step={step:g}, low={low:g}): step must be above 0, low above 0 and at most 1")
    used = [n if basis == "pixel" else min(n, max(LEAST, math.ceil(low * n))) for n in x.shape[2:]]
    sides = [x.shape[1], *used]
    x_adv, rows = x.clone(), torch.arange(len(x), device=x.device)
    loss, met = box.ask(x_adv, rows)
    number = torch.zeros(len(x), dtype=torch.long, device=x.device)  # how many directions the picture is done with
    back = torch.zeros_like(number)  # 1 where the step back along the direction comes next
    order = torch.zeros(len(x), math.prod(sides), dtype=torch.long, device=x.device)
    idle = torch.zeros_like(number)  # directions in a row along which the picture could not move
    while True:
        rows = rows[~met[rows] & (idle[rows] < order.shape[1]) & (box.left(rows) > 0).to(x.device)]
        if not len(rows):
            return x_adv
        anew = rows[(number[rows] % order.shape[1] == 0) & (back[rows] == 0)]
        order[anew] = rng.uniform(x.new_empty(len(anew), order.shape[1]), anew).argsort(1)
        which = order[rows, number[rows] % order.shape[1]]
        way = basis_directions(which, sides, x, basis) * per_picture(step * (1 - 2 * back[rows]), x)
        tried = project(x_adv[rows] + way, x[rows], eps, "l2")
        can = (tried != x_adv[rows]).flatten(1).any(1)
        helps = torch.zeros_like(can)
        queried, candidates = rows[can], tried[can]
        less, met[queried] = box.ask(candidates, queried)
        better = (less < loss[queried]) | met[queried]
        x_adv[queried[better]], loss[queried[better]] = candidates[better], less[better]
        helps[can] = better
        done = helps | (back[rows] == 1)
        idle[rows] = torch.where(can, 0, idle[rows] + done.long())
        number[rows] += done.long()
        back[rows] = (~done).long()


def basis_directions(which: Tensor, sides: list[int], x: Tensor, basis: str) -> Tensor:
    """The directions of length 1 with the numbers which (n,), counted through sides (C, *frequencies): (n, C, *S)."""
    at = torch.unravel_index(which, sides)
    lines = [torch.nn.functional.one_hot(at[0], x.shape[1]).to(x.dtype)]
    for k, n in zip(at[1:], x.shape[2:], strict=True):
        lines.append(torch.nn.functional.one_hot(k, n).to(x.dtype) if basis == "pixel" else _cosine(k, n).to(x.dtype))
    out = lines[0].view(len(which), -1, *[1] * len(x.shape[2:]))
    for axis, line in enumerate(lines[1:], 2):
        out = out * line.view(len(which), *[-1 if a == axis else 1 for a in range(1, x.dim())])
    return out


def _cosine(k: Tensor, n: int) -> Tensor:
    """The basis functions k (m,) of the discrete cosine transform (DCT-II) over n places, of length 1: (m, n).

    >>> _cosine(torch.tensor([0, 1]), 2)
    tensor([[ 0.7071,  0.7071],
            [ 0.7071, -0.7071]], dtype=torch.float64)
    """
    k = k.double()[:, None]
    wave = torch.cos(math.pi * k * (torch.arange(n, device=k.device) + 0.5) / n)
    return wave * torch.where(k == 0, (1 / n) ** 0.5, (2 / n) ** 0.5)
