"""Andriushchenko, Croce, Flammarion & Hein 2020, arXiv:1912.00049, algorithms 1 to 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, reduce

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from clearsight.core import rng
from clearsight.core.batching import at_once
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import method
from clearsight.core.norms import Norm, per_picture, perturbation_norm
from clearsight.errors import Refused

WASTE = 0.4  # queries are tried ahead as long as about a fifth of them, half of this, comes after an accepted one
DRAWN = 100  # queries for which random numbers are drawn at a time
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after which of 10000 queries the share p is halved

# Of pictures (n,), all the best versions so far (B, C, *S) and plans (n, k): the new versions (m, C, *S) of those in
# which something changes, and in which nothing does, (n,) bool.
Change = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


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

    Every picture has squares of its own, and the look at the first version counts as a query, as in the authors'
    program of 2020; that in AutoAttack draws one square for all pictures of a batch.  As in algorithm 2, and unlike in
    that program, a colour that stands there already is not drawn again: its query is paid for and changes nothing.

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
    sizes = [square_sides(x.shape[2:], p / 2**h, norm) for h in range(len(HALVED) + 1)]
    begin, change = (_tiles, _hill_builder(x, eps)) if norm == "l2" else (_stripes, _painter(x, eps, sizes))
    best = begin(x, eps, torch.arange(len(x), device=x.device))
    low, met = box.ask(best, torch.arange(len(x)))
    plans = _Plans(x, sizes, queries if rescale else 10000, norm)
    left = torch.minimum(torch.tensor(queries - 1), box.left()).to(x.device).masked_fill(met, 0)
    rate, seen = 0.5, 1.0  # shares of the queries of late that were accepted, and that the network saw
    while True:
        rows = (left > 0).nonzero()[:, 0]
        if not rows.numel():
            return best
        ahead = max(1, min(int(at_once() / (rows.numel() * seen)), int(WASTE / rate)))
        of, nth, plan = plans.next(rows, left.index_select(0, rows).clamp_max_(ahead))
        new, same = change(of, best, plan)  # the same: as where a square has the colour that stood there
        before = low.index_select(0, of)
        loss, meets, asked = box.ask_until_better(new, of, nth, before, known=same)
        count = asked.long()
        left.index_add_(0, of, count, alpha=-1)
        plans.at.index_add_(0, of, count)
        better = ((loss < before) & asked) | meets
        improved = of.masked_select(better)
        best.index_copy_(0, improved, new.index_select(0, better.masked_select(~same).nonzero()[:, 0]))
        low.index_copy_(0, improved, loss.masked_select(better))
        left.index_fill_(0, of.masked_select(meets), 0)
        rate += (improved.numel() / int(count.sum()) - rate) / 10
        seen += (len(new) / len(of) - seen) / 10


class _Plans:
    """What the queries about each of the pictures x (B, C, *S) change, drawn many queries at a time."""

    def __init__(self, x: Tensor, sizes: list[list[int]], schedule: int, norm: Norm) -> None:
        shape = x.shape[2:]
        self.shape, self.schedule, self.norm = shape, schedule, norm
        self.sides = torch.tensor(sizes, device=x.device)  # after each number of halvings
        self.numbers = x.new_empty(0, DRAWN, (2 * len(shape) + 1 if norm == "l2" else len(shape)) + x.shape[1])
        width = self.numbers.shape[2] + len(shape) if norm == "l2" else 2 + x.shape[1]
        self.values = torch.empty(len(x), DRAWN, width, dtype=x.dtype if norm == "l2" else torch.long, device=x.device)
        self.at = torch.full((len(x),), DRAWN, device=x.device)
        self.used = torch.full((len(x),), 1 - DRAWN, device=x.device)  # queries before the first of the values

    def next(self, rows: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The plans of the next queries, at most count (n,), about each of the pictures rows (n,).

        For every query, picture by picture, its picture, its place among them from 1, and its plan: (m,), (m,), (m, k).
        """
        at = self.at.index_select(0, rows)
        if bool((at == DRAWN).any()):
            self._draw(rows[at == DRAWN])
            at = self.at.index_select(0, rows)
        count = torch.minimum(count, DRAWN - at)
        which = torch.repeat_interleave(count)
        nth = torch.arange(len(which), device=rows.device) - (count.cumsum(0) - count).index_select(0, which)
        place = (rows * DRAWN + at).index_select(0, which) + nth
        return rows.index_select(0, which), nth + 1, self.values.flatten(0, 1).index_select(0, place)

    def _draw(self, rows: Tensor) -> None:
        self.at[rows] = 0
        self.used[rows] += DRAWN
        u = rng.uniform(self.numbers.new_empty(len(rows), *self.numbers.shape[1:]), rows).flatten(0, 1)
        used = self.used[rows, None] + torch.arange(DRAWN, device=rows.device)
        size = halvings(used.flatten() - 1, self.schedule)
        if self.norm == "l2":
            plan = torch.cat([self.sides[size].to(u), u], 1)
        else:
            first = first_places(self.shape, self.sides[size], u[:, : len(self.shape)])
            at = (first * torch.tensor(_strides(self.shape), device=u.device)).sum(1, keepdim=True)
            plan = torch.cat([at, size[:, None], (u[:, len(self.shape) :] < 0.5).long()], 1)
        self.values[rows] = plan.view(len(rows), DRAWN, -1)


def halvings(used: Tensor, queries: int) -> Tensor:
    """How often the share p has been halved after numbers of used queries, (n,).

    >>> halvings(torch.tensor([10, 11, 51, 8001]), 10000)
    tensor([0, 1, 2, 9])
    """
    used = used * 10000 // queries
    return (used[:, None] > torch.tensor(HALVED, device=used.device)).sum(1)


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
    return _nearest_within(x + eps * _signs(u), x, eps)


def _painter(x: Tensor, eps: float, sizes: list[list[int]]) -> Change:
    """Set each channel to x + eps or x - eps inside one square.

    plan (n, 2 + C): the square's first place, counted through the picture; the number of its size, of those in sizes;
    and for each channel 1 for x - eps and 0 for x + eps.
    """
    places, channels = x[0, 0].numel(), torch.arange(x.shape[1], device=x.device)
    colours = torch.stack([_nearest_within(x + eps, x, eps), _nearest_within(x - eps, x, eps)], 2)
    inside = [_places_of(x.shape[2:], sides).to(x.device) for sides in sizes]

    def paint(of: Tensor, best: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        start, size, lower = plan[:, 0], plan[:, 1], plan[:, 2:]
        some, most = (int(k) for k in size.aminmax())
        at = start[:, None] + _one_below_the_other(inside[some : most + 1]).index_select(0, size - some)
        channel = of[:, None] * len(channels) + channels
        flat = (channel * places)[..., None] + at[:, None]  # places (n, C, k) in all the pictures
        colour = torch.take(colours, flat + ((channel + lower) * places)[..., None])
        differs = is_changed(torch.take(best, flat), colour)
        changed = differs.nonzero()[:, 0]
        new = best.index_select(0, of.index_select(0, changed))
        moved = (torch.arange(len(changed), device=of.device) - of.index_select(0, changed)) * (places * len(channels))
        flat = flat.index_select(0, changed).add_(moved[:, None, None])
        return new.put_(flat, colour.index_select(0, changed)), ~differs

    return paint


def is_changed(stood: Tensor, colour: Tensor) -> Tensor:
    """In which squares (n, C, k) anything has another colour than stood there before, (n,) bool."""
    return (stood != colour).flatten(1).any(1)


def _places_of(shape: torch.Size, sides: list[int]) -> Tensor:
    """The places of a square in the picture's first corner, counted through the picture.

    >>> _places_of(torch.Size((5, 6)), [2, 3])
    tensor([0, 1, 2, 6, 7, 8])
    """
    lines = [torch.arange(n) * step for n, step in zip(sides, _strides(shape), strict=True)]
    return reduce(lambda a, b: (a[:, None] + b).flatten(), lines)


def _strides(shape: torch.Size) -> list[int]:
    """How many places it is from one place to the next along each axis."""
    return [math.prod(shape[a + 1 :]) for a in range(len(shape))]


def _one_below_the_other(places: list[Tensor]) -> Tensor:
    """Places (k,) as rows of one table; where a row is shorter, its first place stands again."""
    return places[0][None] if len(places) == 1 else pad_sequence(places, batch_first=True)


def _nearest_within(z: Tensor, x: Tensor, eps: float) -> Tensor:
    """What z (B, C, *S), eps away from x, is next to among numbers that are in [0, 1] and no farther than eps."""
    z = z.clamp_(0, 1)
    return torch.where((z - x).abs() > eps, torch.nextafter(z, x), z)


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


def _hill_builder(x: Tensor, eps: float) -> Change:
    return lambda of, best, plan: (
        add_hills(x.index_select(0, of), best.index_select(0, of), eps, plan),
        torch.zeros_like(of, dtype=torch.bool),
    )


def add_hills(x: Tensor, best: Tensor, eps: float, plan: Tensor) -> Tensor:
    """Move the change in a second square, and the unused budget, into a first square (algorithm 3 of the paper).

    plan (n, 3 axes + 1 + C): the sides of the squares, and numbers in [0, 1) that choose their places, the hill and the
    signs.
    """
    axes, channels = x.dim() - 2, x.shape[1]
    sides, u = plan[:, :axes].long(), plan[:, axes:]
    along, start = place_square(x.shape[2:], sides, u[:, :axes])
    along_second, _ = place_square(x.shape[2:], sides, u[:, axes : 2 * axes])
    first, second = (reduce(torch.logical_and, masks)[:, None] for masks in (along, along_second))
    index = places_inside(x.shape[2:], sides, start)
    move = best - x
    unused = (eps**2 - perturbation_norm(move, "l2") ** 2).clamp_min(0)[:, None] / channels
    free = (unused + _squares(move * (first | second))).sqrt()
    hills = _hills_of(x, sides, u[:, 2 * axes]).gather(1, index.flatten(1)).view_as(index)[:, None]
    stood = move * first
    new = (hills * _beside(_signs(u[:, 2 * axes + 1 :]), axes) + _beside(_over(stood), axes) * stood) * first
    new = new * _beside(_over(new) * free, axes)
    return _grown(x, torch.where(first, new, torch.where(second, 0.0, move)), eps)


def _hills_of(x: Tensor, sides: Tensor, u: Tensor) -> Tensor:
    """A hill beside a valley for each picture, (n, m), as `_hills` for squares with sides (n, axes), one place after
    the other.  Where a square has less than m places, the last stand for nothing.
    """
    kinds, which = torch.unique(sides, dim=0, return_inverse=True)
    every = x.new_zeros(len(kinds), kinds.shape[1], int(kinds.prod(1).max()))
    for k, kind in enumerate(kinds.tolist()):
        for axis in range(len(kind)):
            every[k, axis, : math.prod(kind)] = hill_and_valley(tuple(kind), axis).flatten()
    return every[which, (u * kinds.shape[1]).long()]


def _grown(x: Tensor, move: Tensor, eps: float) -> Tensor:
    """Add the move, scaled to size eps, to the picture."""
    flat = per_picture(perturbation_norm(move, "l2").clamp_min(1e-12), x)
    return (x + move / flat * eps).clamp(0, 1)


def _hills(x: Tensor, sides: list[int], u: Tensor) -> Tensor:
    """A hill beside a valley for each picture, (n, *sides), of size 1, along the axis that u (n,) chooses."""
    every = torch.stack([hill_and_valley(tuple(sides), axis).to(x) for axis in range(len(sides))])
    return every[(u * len(sides)).long()]


@lru_cache(256)
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


def place_square(shape: torch.Size, sides: Tensor, u: Tensor) -> tuple[list[Tensor], Tensor]:
    """Place squares with sides (n, axes) as u (n, axes) chooses.

    For each axis where they are along it, bool, in a shape that goes with (n, *S): a place lies inside where all are
    true.  And the first place of each along each axis, (n, axes).
    """
    start = first_places(shape, sides, u)
    along = []
    for a, off in enumerate(_offsets(shape, start)):
        side = sides[:, a].view(-1, *[1] * sides.shape[1])
        along.append((off >= 0) & (off < side))
    return along, start


def first_places(shape: torch.Size, sides: Tensor, u: Tensor) -> Tensor:
    """The first place along each axis, (n, axes), of squares with sides (n, axes) that lie as u (n, axes) chooses."""
    lengths = torch.tensor(shape, device=u.device)
    return torch.minimum((u * (lengths - sides + 1)).long(), lengths - sides)


def _offsets(shape: torch.Size, start: Tensor) -> list[Tensor]:
    """How far each place lies behind the start (n, axes) along each axis, in a shape that goes with (n, *S)."""
    found = []
    for a, n in enumerate(shape):
        off = torch.arange(n, device=start.device) - start[:, a, None]
        found.append(off.view(-1, *[n if b == a else 1 for b in range(len(shape))]))
    return found


def places_inside(shape: torch.Size, sides: Tensor, start: Tensor) -> Tensor:
    """The number (n, *S) of each place in a square, counted along its rows; of places outside, of the nearest inside.

    sides, start (n, axes): of the squares.
    """
    index = torch.zeros(1, dtype=torch.long, device=start.device)
    for a, off in enumerate(_offsets(shape, start)):
        side = sides[:, a].view(-1, *[1] * sides.shape[1])
        index = index * side + torch.minimum(off.clamp_min(0), side - 1)
    return index


def _squares(t: Tensor) -> Tensor:
    """The sum of squares of each channel: (n, C, *S) -> (n, C)."""
    return (t**2).flatten(2).sum(2)


def _over(t: Tensor) -> Tensor:
    """The inverse of the L2 norm of each channel: (n, C, *S) -> (n, C)."""
    return 1 / _squares(t).sqrt().clamp_min(1e-12)


def _beside(values: Tensor, axes: int) -> Tensor:
    return values.view(*values.shape, *[1] * axes)
