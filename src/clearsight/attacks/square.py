"""Andriushchenko, Croce, Flammarion & Hein 2020, arXiv:1912.00049, algorithms 1 to 3."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import method
from clearsight.core.norms import Norm, per_picture, perturbation_norm
from clearsight.errors import Refused

HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after which of 10000 queries the share p is halved


@method(paper="arXiv:1912.00049", claims="linf l2 stochastic black-box")
def square(
    box: BlackBox,
    x: Tensor,
    *,
    eps: float,
    queries: int = 5000,
    p: float = 0.8,
    rescale: bool = True,
    norm: Norm = "linf",
) -> Tensor:
    """Random squares, kept where they bring the goal nearer: it needs scores, but no gradient.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  A version is kept where its margin is smaller.  Sequences
    have intervals for squares, clips have cubes.

    In linf the attack begins with stripes of +-eps; then each channel inside a square is set to x + eps or x - eps.  In
    l2 a square gets the share of the budget that is unused, or that stood there and in a second square, in the shape of
    a hill beside a valley.

    Args:
        queries: number of scores that may be asked for about each picture, from 1.
        p: share of the picture that the first squares cover, above 0 and up to 1; it is halved after 10, 50, 200, 500,
            1000, 2000, 4000, 6000 and 8000 queries of 10000.
        rescale: halve p after these shares of the queries; otherwise after these numbers of queries.
        norm: norm of the budget, linf or l2.

    Source: Andriushchenko et al. 2020, algorithms 1 to 3.

    One pixel is its own square, set to 0.25 or 0.75; the goal is met at the lower:

    >>> from clearsight.core.targets import Misclassify
    >>> from clearsight.testing import linear
    >>> x, right = torch.tensor([[[[0.5]]]]), Misclassify(torch.tensor([0]))
    >>> square(BlackBox(linear([[1.0], [0.0]], [-0.4, 0.0]), x, right, eps=0.25), x, eps=0.25, queries=60).tolist()
    [[[[0.25]]]]
    """
    if not 0 < p <= 1 or queries < 1:
        raise Refused(f"square(p={p:g}, queries={queries}): p must be above 0 and at most 1, queries at least 1")
    rows = torch.arange(len(x), device=x.device)
    begin, change = (_tiles, add_hills) if norm == "l2" else (_stripes, _painted)
    best = begin(x, eps, rows)
    low, met = box.ask(best, rows)
    for used in range(1, queries):
        rows = rows[~met[rows]]
        rows = rows[(box.left(rows) > 0).to(rows.device)]
        if not len(rows):
            break
        sides = square_sides(x.shape[2:], share(p, used - 1, queries if rescale else 10000), norm)
        new = change(x[rows], best[rows], eps, sides, rows)
        loss, meets = box.ask(new, rows)
        better = (loss < low[rows]) | meets
        improved = rows[better]
        best[improved], low[improved], met[improved] = new[better], loss[better], meets[better]
    return best


def share(p: float, used: int, queries: int) -> float:
    """The share of the picture that a square covers after a number of used queries.

    >>> [share(0.8, k, 10000) for k in (10, 11, 51, 8001)]
    [0.8, 0.4, 0.2, 0.0015625]
    """
    used = used * 10000 // queries
    halvings = sum(used > k for k in HALVED)
    return p / float(2**halvings)


def square_sides(shape: torch.Size, part: float, norm: Norm) -> list[int]:
    """The sides of a square that covers the share part of the picture, each at most as long as the picture."""
    side = round((part * math.prod(shape)) ** (1 / len(shape)))
    side = max(side, 3) // 2 * 2 + 1 if norm == "l2" else max(side, 1)
    return [min(side, n) for n in shape]


def _signs(u: Tensor) -> Tensor:
    return torch.where(u < 0.5, -1.0, 1.0).to(u)


def _stripes(x: Tensor, eps: float, rows: Tensor) -> Tensor:
    """Add +-eps to each picture, drawn for each place of the last axis and the same along the other axes."""
    axes = x.dim() - 3
    u = rng.uniform(x[(slice(None), slice(None), *[slice(1)] * axes)], rows)
    return (x + eps * _signs(u)).clamp(0, 1)


def _painted(x: Tensor, best: Tensor, eps: float, sides: list[int], rows: Tensor) -> Tensor:
    """Set each channel to x + eps or x - eps inside one square: (n, C, *S)."""
    axes, channels = len(sides), x.shape[1]
    u = rng.uniform(x.new_empty(len(x), axes + channels), rows)
    inside, _ = place_square(x.shape[2:], sides, u[:, :axes])
    colour = _signs(u[:, axes:]).view(len(x), channels, *[1] * axes)
    return torch.where(inside[:, None], (x + eps * colour).clamp(0, 1), best)


def _tiles(x: Tensor, eps: float, rows: Tensor) -> Tensor:
    """Add hills and valleys of total size eps to each picture, in tiles a fifth as wide as it is."""
    shape, axes, channels = x.shape[2:], x.dim() - 2, x.shape[1]
    sides = [max(n // 5, 1) for n in shape]
    counts = [n // s for n, s in zip(shape, sides, strict=True)]
    u = rng.uniform(x.new_empty(len(x), math.prod(counts), 1 + channels), rows)
    move = torch.zeros_like(x)
    for k in range(math.prod(counts)):
        place = [int(i) for i in torch.unravel_index(torch.tensor(k), counts)]
        start = [(n - s * c) // 2 + s * i for n, s, c, i in zip(shape, sides, counts, place, strict=True)]
        where = (slice(None), slice(None), *[slice(a, a + s) for a, s in zip(start, sides, strict=True)])
        move[where] = _hills(x, sides, u[:, k, 0])[:, None] * _beside(_signs(u[:, k, 1:]), axes)
    return _grown(x, move, eps)


def add_hills(x: Tensor, best: Tensor, eps: float, sides: list[int], rows: Tensor) -> Tensor:
    """Move the change in a second square, and the unused budget, into a first square (algorithm 3 of the paper)."""
    axes, channels = len(sides), x.shape[1]
    u = rng.uniform(x.new_empty(len(x), 2 * axes + 1 + channels), rows)
    first, index = place_square(x.shape[2:], sides, u[:, :axes])
    second, _ = place_square(x.shape[2:], sides, u[:, axes : 2 * axes])
    first, second = first[:, None], second[:, None]
    move = best - x
    unused = (eps**2 - perturbation_norm(move, "l2") ** 2).clamp_min(0)[:, None] / channels
    free = (unused + _squares(move * (first | second))).sqrt()
    hills = _hills(x, sides, u[:, 2 * axes]).flatten(1).gather(1, index.flatten(1)).view_as(index)[:, None]
    stood = move * first
    new = (hills * _beside(_signs(u[:, 2 * axes + 1 :]), axes) + _beside(_over(stood), axes) * stood) * first
    new = new * _beside(_over(new) * free, axes)
    return _grown(x, torch.where(first, new, torch.where(second, 0.0, move)), eps)


def _grown(x: Tensor, move: Tensor, eps: float) -> Tensor:
    """Add the move, scaled to size eps, to the picture."""
    flat = per_picture(perturbation_norm(move, "l2").clamp_min(1e-12), x)
    return (x + move / flat * eps).clamp(0, 1)


def _hills(x: Tensor, sides: list[int], u: Tensor) -> Tensor:
    """A hill beside a valley for each picture, (n, *sides), of size 1, along the axis that u (n,) chooses."""
    every = torch.stack([hill_and_valley(tuple(sides), axis).to(x) for axis in range(len(sides))])
    return every[(u * len(sides)).long()]


@functools.lru_cache(256)
def hill_and_valley(sides: tuple[int, ...], axis: int) -> Tensor:
    """A hill in the first half along an axis and a valley in the second, of size 1 together (section 3.4 of the paper).

    >>> hill_and_valley((2,), 0), hill_and_valley((1, 3), 1)
    (tensor([ 0.7071, -0.7071]), tensor([[ 0.7071, -0.1387, -0.6934]]))
    """
    half = [s // 2 if a == axis else s for a, s in enumerate(sides)]
    rest = [s - s // 2 if a == axis else s for a, s in enumerate(sides)]
    parts = [_pyramid(half), -_pyramid(rest)]
    both = torch.cat(parts, dim=axis)
    return both / both.square().sum().sqrt()


def _pyramid(sides: list[int]) -> Tensor:
    """The sum of 1 / k**2 from each place's ring outwards, scaled to size 1; rings are counted from the centre."""
    if 0 in sides:
        return torch.zeros(sides)
    last = max(sides) // 2 + 1
    rings = [(torch.arange(s) - s // 2).abs() for s in sides]
    ring = torch.stack(torch.meshgrid(*rings, indexing="ij")).amax(0)
    heights = (1 / torch.arange(1, last + 1) ** 2).flip(0).cumsum(0).flip(0)
    pyramid = heights[ring]
    return pyramid / pyramid.square().sum().sqrt()


def place_square(shape: torch.Size, sides: list[int], u: Tensor) -> tuple[Tensor, Tensor]:
    """Place a square as u (n, axes) chooses: its mask, bool (n, *S), and the index in the square of each place."""
    inside = torch.ones(len(u), *[1] * len(sides), dtype=torch.bool, device=u.device)
    index = torch.zeros(inside.shape, dtype=torch.long, device=u.device)
    for a, (n, side) in enumerate(zip(shape, sides, strict=True)):
        start = (u[:, a] * (n - side + 1)).long().clamp_max(n - side)
        off = (torch.arange(n, device=u.device) - start[:, None]).view(
            len(u), *[n if b == a else 1 for b in range(len(sides))]
        )
        inside = inside & (off >= 0) & (off < side)
        index = index * side + off.clamp(0, side - 1)
    return inside, index


def _squares(t: Tensor) -> Tensor:
    """The sum of squares of each channel: (n, C, *S) -> (n, C)."""
    return (t**2).flatten(2).sum(2)


def _over(t: Tensor) -> Tensor:
    """The inverse of the L2 norm of each channel: (n, C, *S) -> (n, C)."""
    return 1 / _squares(t).sqrt().clamp_min(1e-12)


def _beside(values: Tensor, axes: int) -> Tensor:
    return values.view(*values.shape, *[1] * axes)
