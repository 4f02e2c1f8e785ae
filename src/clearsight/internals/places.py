"""The layout of a layer's output: channels first, channels last, or tokens in a row.

A shape does not say it: (B, 9, 9, 768) may be 9 channels of 9 x 768 places or 768 channels of 9 x 9.  What the layer
does says it.  Two disturbances are laid on a picture, one growing down its rows, one along its columns; how much more
the one than the other arrives at a value of the layer tells which part of the picture that value looks at.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from clearsight.core.memory_order import lies_last

_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd)
_LEAST = 0.1  # of a disturbance where it is weakest; 1 where it is strongest
_EXTRA = 16  # tokens that stand for no place, at most
_CLEAR = 0.6  # correlation from which on the response alone says where the places are
_APART = 0.4  # by so much more than for the other reading
_EXTRAS = 0.03  # of what tokens differ by: so much more must a reading with extra tokens explain
_ODD = 0.12  # and one with places that are not square
_LUCK = 0.1  # and one with so few places, where some are extra
_MANY = 16  # places from which on it is asked whether they lie as the picture does, whatever the type says
_HALF = 1.0  # of the slope of 2 that the response has along an axis where places see their own part alone
_MOST = 0.5  # of what differs is along the axes
_AGAINST = 0.5  # of the slope along one axis: so much against the other
_LONG = 4  # times as high as wide, or as wide, may a place be
_FEW = 2  # places whose response is no more than a hint
_TOGETHER = 0.25  # of what tokens differ by is explained, in the middle of the layers that are asked together


@dataclass(frozen=True)
class Layout:
    """How the output of a layer holds its maps.

    first: channels before places, (B, C, *sides); else after them, (B, *sides, C), or as tokens in a row (B, N, C),
    of which `before` come before the places and `after` behind them, and stand for none.
    """

    sides: tuple[int, ...]
    first: bool = False
    before: int = 0
    after: int = 0
    row: bool = False

    @property
    def spatial(self) -> bool:
        """Whether there is more than one place."""
        return max(self.sides) > 1


@dataclass(frozen=True)
class Response:
    """How strongly the two disturbances arrive at a layer.

    first, last: the squared change (2, ...) by each, summed over axis 1, and over the last one; None where it was not
    measured.  channels_first, channels_last: the type of the module says so.
    """

    shape: tuple[int, ...]
    first: Tensor | None
    last: Tensor | None
    channels_first: bool
    channels_last: bool


def disturbances(shape: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two disturbances (C, *S) of +-1 for pictures of that shape, each growing along one axis, from 0.1 to 1.

    The first grows along the rows' axis, the second along the columns'; of a sequence both along its only axis, the
    second backwards.  Both have the same pattern up to the sign of coarse blocks: to what looks at a few pixels they
    differ in strength alone, and yet as directions in the space of pictures have nothing to do with each other.
    """
    channels, *size = shape
    sign = torch.randint(0, 2, (channels, *size), generator=generator) * 2.0 - 1
    coarse = torch.randint(0, 2, (1, 1, *(min(8, n) for n in size)), generator=generator) * 2.0 - 1
    blocks = nn.functional.interpolate(coarse, tuple(size), mode="nearest")[0]
    one, two = _ramps(tuple(size))
    return sign * one, sign * blocks * two


def _ramps(sides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The strength of the two disturbances at the centres of so many places; each broadcasts to their shape."""
    rows, columns = _LEAST + (1 - _LEAST) * _centres(sides[0]), _LEAST + (1 - _LEAST) * _centres(sides[-1])
    if len(sides) == 1:
        return rows, rows.flip(0)
    return rows.view(-1, *[1] * (len(sides) - 1)), columns.view(*[1] * (len(sides) - 1), -1)


def _centres(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def response(module: nn.Module, out: Tensor) -> Response:
    """The response of a layer whose output is out (3, ...): of a picture, and of it with each disturbance."""
    if out.dim() < 3 or not out.is_floating_point():
        return entering(module, out)
    first, last = sums((out[1:] - out[:1]).detach().float().square_())
    return replace(entering(module, out), first=first.cpu(), last=last.cpu())


def sums(change: Tensor) -> tuple[Tensor, Tensor]:
    """The sums over axis 1 and over the last one; as products where channels lie last, which is three times as fast."""
    if not (lies_last(change) and change.is_cpu):
        return change.sum(1), change.sum(-1)
    n, channels, height, width = change.shape
    places = change.permute(0, 2, 3, 1)
    first = places.reshape(-1, channels) @ change.new_ones(channels)
    last = change.new_ones(n * height, 1, width) @ places.reshape(n * height, width, channels)
    return first.view(n, height, width), last.view(n, height, channels).mT


def entering(module: nn.Module, value: Tensor, strength: Response | None = None) -> Response:
    """What the type of a module tells about its input or output value; strength: its response, if known."""
    first, last = (None, None) if strength is None else (strength.first, strength.last)
    return Response(tuple(value.shape), first, last, isinstance(module, _FIRST), _channels_last(module, value))


def _channels_last(module: nn.Module, value: Tensor) -> bool:
    if isinstance(module, nn.LayerNorm):  # some, made for channels first, turn the axes inside
        (last, *more) = module.normalized_shape[::-1]
        return not more and value.dim() > 2 and last == value.shape[-1] != value.shape[1]
    return isinstance(module, nn.Linear)


def layouts(
    responses: Sequence[Response | None], inputs: Sequence[Response], size: tuple[int, ...]
) -> list[Layout | None]:
    """The layout of every layer of one run, in its order; None where it has no places, or none that can be told.

    responses: those of the layers.  inputs: of modules, of which the type of some says where channels are.
    size: of the picture.  A response that is clear decides.  Where it is not, as deep in a network whose every value
    sees the whole picture, the type of the module does (a convolution's channels come first, a Linear's last), or that
    of a module that gives or takes the same shape.  Tokens are read as all layers with as many of them say together.
    """
    by_shape: dict[tuple[int, ...], set[bool]] = defaultdict(set)
    for r in (*responses, *inputs):
        if r is not None and (r.channels_first or r.channels_last):
            by_shape[r.shape[1:]].add(r.channels_first)
    rows = _rows([r for r in responses if r is not None and len(r.shape) == 3], size)
    known: dict[tuple[Any, ...], Layout | None] = {}  # many modules only hand on what another gave
    found: list[Layout | None] = []
    for r in responses:
        what = None if r is None else (r.shape, id(r.first), id(r.last), r.channels_first, r.channels_last)
        if r is not None and what is not None and what not in known:
            known[what] = _layout(r, by_shape, rows, size)
        found.append(None if what is None else known[what])
    return found


def _layout(
    r: Response, by_shape: dict[tuple[int, ...], set[bool]], rows: dict[int, Layout], size: tuple[int, ...]
) -> Layout | None:
    dims = len(r.shape)
    row = rows.get(r.shape[1]) if dims == 3 else None
    if dims != 2 + len(size):
        return row
    first, last = Layout(r.shape[2:], first=True), row or Layout(r.shape[1:-1])
    ahead = _score(r.first, first.sides) if first.spatial else -1.0
    behind = _score(r.last, last.sides) if dims > 3 and last.spatial else -1.0
    if row:
        behind = _row_score(r, row)
    by_type = _by_type(r, by_shape)
    if max(ahead, behind) >= _CLEAR and abs(ahead - behind) >= _APART:
        if ahead > behind:
            return first
        if dims == 3 or not by_type:
            return last
        if math.prod(last.sides) >= _MANY:  # the maps of a convolution lie another way than the picture
            return None
    if not first.spatial:
        return first  # pooled to one place
    if by_type is None or _distorted((first if by_type else last).sides, size):
        return None
    if by_type:
        return None if _lies_otherwise(r.first, first.sides) else first
    return None if dims > 3 and _lies_otherwise(r.last, last.sides) else _channels_last_layout(last, row, dims)


def _by_type(r: Response, by_shape: dict[tuple[int, ...], set[bool]]) -> bool | None:
    """Whether channels come first as the type of the module, or of others with that shape, says; None if none does."""
    if r.channels_first != r.channels_last:
        return r.channels_first
    alike = by_shape.get(r.shape[1:], set())
    return True in alike if len(alike) == 1 else None


def _distorted(sides: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether places would have to be many times as high as wide, or as wide: other axes are taken for them then."""
    shares = [n / side for n, side in zip(size, sides, strict=True)]
    return max(shares[-2:]) > _LONG * min(shares[-2:])


def _channels_last_layout(last: Layout, row: Layout | None, dims: int) -> Layout | None:
    """Channels last as the type of a module says; of rows of tokens only where the places were found."""
    return row if dims == 3 else last


def _score(strength: Tensor | None, sides: tuple[int, ...]) -> float:
    """The correlation of a response (2, *sides) with that of places that look at their own part of the picture."""
    log_ratio = None if strength is None or tuple(strength.shape[1:]) != sides else _log_ratio(strength)
    if log_ratio is None:
        return 0.0
    a, b = (log_ratio - log_ratio.mean()).flatten(), _wanted(sides)
    size = float(a.norm() * b.norm())
    confidence = 1.0 if len(a) > _FEW else 0.5  # two points always lie on a line
    return confidence * float(a @ b) / size if size > 1e-9 else 0.0


@lru_cache(256)
def _wanted(sides: tuple[int, ...]) -> Tensor:
    """The logarithm of how much more of the first disturbance lies at each place than of the second, less its mean."""
    down, across = _ramps(sides)
    wanted = (down.log() - across.log()).expand(sides)
    return (wanted - wanted.mean()).flatten()


def _log_ratio(strength: Tensor) -> Tensor | None:
    """How much more the first disturbance arrives at each place than the second, as a logarithm; None if unknown."""
    top = float(strength.max())  # NaN where one value is
    if not 0 < top < math.inf:
        return None
    logarithms = (strength.double() + 1e-9 * top).log()
    return logarithms[0] - logarithms[1]


def _lies_otherwise(strength: Tensor | None, sides: tuple[int, ...]) -> bool:
    """Whether places clearly see their own part of the picture, but do not lie as it does: mirrored, say, or turned.

    What is compared then falls along one axis where it should grow.
    """
    log_ratio = None if strength is None or tuple(strength.shape[1:]) != sides else _log_ratio(strength)
    if log_ratio is None or min(sides[0], sides[-1]) < 2 or log_ratio.numel() < _MANY:
        return False
    log_ratio = (log_ratio - log_ratio.mean()).flatten()
    along, sizes = _along_the_axes(sides)
    slopes = (along @ log_ratio) / sizes
    explained = float((slopes.square() * sizes).sum() / log_ratio.square().sum().clamp_min(1e-30))
    steep, least = float(slopes.abs().max()), float(slopes.min())
    return explained >= _MOST and steep >= _HALF and least < -_AGAINST * steep


@lru_cache(256)
def _along_the_axes(sides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """What grows along each axis of so many places, less its mean (axes, N), and its sum of squares (axes,)."""
    one, two = (t.log().expand(sides).flatten() for t in _ramps(sides))
    axes = (one - two,) if len(sides) == 1 else (one, -two)
    along = torch.stack([a - a.mean() for a in axes])
    return along, along.square().sum(1)


def _rows(responses: list[Response], size: tuple[int, ...]) -> dict[int, Layout]:
    """Number of tokens -> where their places are, for numbers of which it can be told."""
    alike: dict[int, list[Response]] = defaultdict(list)
    for r in responses:
        alike[r.shape[1]].append(r)
    square = set(_grids(size))
    best = {}
    for n, of_tokens in alike.items():
        log_ratios = [_log_ratio(r.last) for r in of_tokens if r.last is not None]
        ratios = (
            torch.stack([t for t in log_ratios if t is not None]) if any(t is not None for t in log_ratios) else None
        )
        if ratios is None:
            continue
        unknown = torch.zeros(len(of_tokens) - len(ratios))
        scores = {}
        for row in _candidates(n, size, square):
            scores[row] = float(torch.cat([_share_explained(ratios, row), unknown]).quantile(0.5))
        penalised = {row: score - _penalty(row, square) for row, score in scores.items()}
        if penalised and max(penalised.values()) >= _TOGETHER:
            best[n] = max(penalised, key=penalised.__getitem__)
    return best


def _share_explained(ratios: Tensor, row: Layout) -> Tensor:
    """The share of what the places of R layers (R, N) differ by that a reading explains, (R,).

    Places lie along the ramps, and extra tokens, which see the whole picture, are all alike: by what they are not, the
    share is less.  Below 0 where places lie against the ramps.
    """
    end = row.before + math.prod(row.sides)
    one, two = (t.log().expand(row.sides).flatten() for t in _ramps(row.sides))
    wanted = one - two - (one - two).mean()
    places, extra = ratios[:, row.before : end], torch.cat([ratios[:, : row.before], ratios[:, end:]], 1)
    slope = places @ wanted / wanted.square().sum()
    unexplained = _spread(places - slope[:, None] * wanted) + _spread(extra)
    share = 1 - unexplained / _spread(places).clamp_min(1e-30)
    return share.where(slope > 0, -share.abs())


def _spread(values: Tensor) -> Tensor:
    """The sum of squares (R,) of values (R, N) about their mean; 0 of none."""
    return (values - values.mean(1, keepdim=True)).square().sum(1) if values.shape[1] else values.new_zeros(len(values))


def _penalty(row: Layout, square: set[tuple[int, ...]]) -> float:
    """How much more a reading must explain than one with all tokens for square places."""
    extra = row.before + row.after
    penalty = _EXTRAS if extra else 0.0
    penalty += _LUCK if extra and math.prod(row.sides) < _MANY / 2 else 0.0
    return penalty + (0.0 if row.sides in square else _ODD)


def _row_score(r: Response, row: Layout | None) -> float:
    if row is None or r.last is None:
        return 0.0
    places = r.last[:, row.before : row.before + math.prod(row.sides)]
    return _score(places.reshape(2, *row.sides), row.sides)


def _candidates(tokens: int, size: tuple[int, ...], square: set[tuple[int, ...]]) -> Iterator[Layout]:
    """Every way in which so many tokens may lie over a picture of that size.

    In patches of any proportions, or in square ones with a few tokens that are extra.
    """
    for sides in sorted(square | set(_exact_grids(tokens, size))):
        extra = tokens - math.prod(sides)
        if not 0 <= extra <= min(_EXTRA, math.prod(sides) - 1) or max(sides) == 1:
            continue
        for before in range(extra + 1):
            yield Layout(sides, before=before, after=extra - before, row=True)


def _exact_grids(tokens: int, size: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Rows and columns of a picture of which there are so many tokens."""
    if len(size) == 2:
        for rows in range(2, size[0] + 1):
            if tokens % rows == 0 and 2 <= tokens // rows <= size[1]:
                yield rows, tokens // rows


def _grids(size: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Numbers of places along each side for patches of 1, 2, 3, ... pixels, the last one whole, cut off or left out.

    A clip (T, H, W) may have patches of another length in time.
    """
    clip = len(size) == 3
    lengths = range(1, size[0] + 1) if clip else [0]
    for patch, length in product(range(1, max(size) + 1), lengths):
        sizes = [length, patch, patch] if clip else [patch] * len(size)
        sides = [sorted({n // p, -(-n // p)} - {0}) for n, p in zip(size, sizes, strict=True)]
        yield from product(*sides)


def as_maps(out: Tensor, layout: Layout) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A layer's output as feature maps (B, C, *s), and the way back from such maps to what the next layer wants.

    Extra tokens are left out of the maps and stay as they are.
    """
    if layout.first:
        return out, lambda maps: maps
    if not layout.row:
        return out.movedim(-1, 1), lambda maps: maps.movedim(1, -1)
    end = layout.before + math.prod(layout.sides)
    maps = out[:, layout.before : end].mT.reshape(len(out), out.shape[2], *layout.sides)
    before, after = out[:, : layout.before], out[:, end:]

    def back(maps: Tensor) -> Tensor:
        return torch.cat([before.to(maps), maps.flatten(2).mT, after.to(maps)], 1)

    return maps, back
