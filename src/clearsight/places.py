"""Where the output of a layer holds its places: channels first, channels last, or tokens in a row.

A shape does not say it: (B, 9, 9, 768) may be 9 channels of 9 x 768 places or 768 channels of 9 x 9.  What the layer
does says it.  Two disturbances are laid on a picture, one growing down its rows, one along its columns; how much more
the one than the other arrives at a value of the layer tells which part of the picture that value looks at.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd)
_LEAST = 0.1  # of a disturbance where it is weakest; 1 where it is strongest
_EXTRA = 16  # tokens that stand for no place, at most
_CLEAR = 0.6  # correlation from which on the response alone says where the places are
_APART = 0.4  # by so much more than for the other reading
_NEAR = 0.05  # by so much less is as good
_FEW = 2  # places whose response is no more than a hint
_TOGETHER = 0.5  # the same for tokens, of which many layers are asked together


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
    """What a layer that gives out (3, ...) makes of a picture, and of the same picture with each disturbance."""
    if out.dim() < 3 or not out.is_floating_point():
        return entering(module, out)
    change = (out[1:] - out[:1]).detach().float().square()
    return replace(entering(module, out), first=change.sum(1).cpu(), last=change.sum(-1).cpu())


def entering(module: nn.Module, value: Tensor, strength: Response | None = None) -> Response:
    """What the type of a module says of a value that it takes or gives; strength: its response, if known."""
    first, last = (None, None) if strength is None else (strength.first, strength.last)
    return Response(tuple(value.shape), first, last, isinstance(module, _FIRST), _channels_last(module, value))


def _channels_last(module: nn.Module, value: Tensor) -> bool:
    if isinstance(module, nn.LayerNorm):  # some, made for channels first, turn the axes inside
        (last, *more) = module.normalized_shape[::-1]
        return not more and value.dim() > 2 and last == value.shape[-1] != value.shape[1]
    return isinstance(module, nn.Linear)


def layouts(found: Sequence[Response | None], taken: Sequence[Response], size: tuple[int, ...]) -> list[Layout | None]:
    """The layout of every layer of one run, in its order; None where it has no places, or none that can be told.

    found: the layers' responses.  taken: what went into modules, of which the type of some says where channels are.
    size: of the picture.  A response that is clear decides.  Where it is not, as deep in a network whose every value
    sees the whole picture, the type of the module does (a convolution's channels come first, a Linear's last), or that
    of a module that gives or takes the same shape.  Tokens are read as all layers with as many of them say together.
    """
    told: dict[tuple[int, ...], set[bool]] = defaultdict(set)
    for r in (*found, *taken):
        if r is not None and (r.channels_first or r.channels_last):
            told[r.shape[1:]].add(r.channels_first)
    rows = _rows([r for r in found if r is not None and len(r.shape) == 3], size)
    return [None if r is None else _layout(r, told, rows, size) for r in found]


def _layout(
    r: Response, told: dict[tuple[int, ...], set[bool]], rows: dict[int, Layout], size: tuple[int, ...]
) -> Layout | None:
    dims = len(r.shape)
    row = rows.get(r.shape[1]) if dims == 3 else None
    if dims != 2 + len(size):
        return row
    first, last = Layout(r.shape[2:], first=True), row or Layout(r.shape[1:-1])
    ahead = _score(r.first, first.sides) if first.spatial else -1.0
    behind = _of_row(r, row) if row else _score(r.last, last.sides) if dims > 3 and last.spatial else -1.0
    if max(ahead, behind) >= _CLEAR and abs(ahead - behind) >= _APART:
        return first if ahead > behind else last
    if not first.spatial:
        return first  # pooled to one place
    if r.channels_first != r.channels_last:
        return first if r.channels_first else _placed(last, row, dims)
    if len(alike := told.get(r.shape[1:], set())) == 1:
        return first if True in alike else _placed(last, row, dims)
    return None


def _placed(last: Layout, row: Layout | None, dims: int) -> Layout | None:
    """Channels last as the type of a module says; of rows of tokens only where the places were found."""
    return row if dims == 3 else last


def _score(strength: Tensor | None, sides: tuple[int, ...]) -> float:
    """The correlation of a response (2, *sides) with that of places that look at their own part of the picture."""
    if strength is None or tuple(strength.shape[1:]) != sides or not bool(strength.isfinite().all()):
        return 0.0
    top = float(strength.max())
    if not top > 0:
        return 0.0
    seen = (strength[0].double() + 1e-9 * top).log() - (strength[1].double() + 1e-9 * top).log()
    one, two = _ramps(sides)
    wanted = (one.log() - two.log()).expand(sides)
    a, b = (t.flatten() - t.mean() for t in (seen, wanted))
    size = float(a.norm() * b.norm())
    sure = 1.0 if len(a) > _FEW else 0.5  # two points always lie on a line
    return sure * float(a @ b) / size if size > 1e-9 else 0.0


def _rows(found: list[Response], size: tuple[int, ...]) -> dict[int, Layout]:
    """Number of tokens -> where their places are, for numbers of which it can be told."""
    alike: dict[int, list[Response]] = defaultdict(list)
    for r in found:
        alike[r.shape[1]].append(r)
    best = {}
    for n, responses in alike.items():
        scores = {row: median(_of_row(r, row) for r in responses) for row in _candidates(n, size)}
        top = max(scores.values(), default=0.0)
        if top >= _TOGETHER:  # a part of the places lies as well as all of them: the fewest extra tokens win
            near = [row for row, score in scores.items() if score >= top - _NEAR]
            fewest = min(row.before + row.after for row in near)
            best[n] = max((row for row in near if row.before + row.after == fewest), key=scores.__getitem__)
    return best


def _of_row(r: Response, row: Layout | None) -> float:
    if row is None or r.last is None:
        return 0.0
    places = r.last[:, row.before : row.before + math.prod(row.sides)]
    return _score(places.reshape(2, *row.sides), row.sides)


def _candidates(tokens: int, size: tuple[int, ...]) -> Iterator[Layout]:
    """Every way in which so many tokens may lie over a picture of that size in square patches, few of them extra."""
    seen = set()
    for sides in _grids(size):
        extra = tokens - math.prod(sides)
        if sides in seen or not 0 <= extra <= min(_EXTRA, math.prod(sides) - 1) or max(sides) == 1:
            continue
        seen.add(sides)
        for before in range(extra + 1):
            yield Layout(sides, before=before, after=extra - before, row=True)


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
