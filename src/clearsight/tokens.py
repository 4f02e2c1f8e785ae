"""Where a transformer keeps its places: tokens in a row, or channels last, seen as feature maps and put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_EXTRA = (0, 1, 2, 5)  # tokens that stand for no place: none, a class token, one more of distillation, four registers


@dataclass(frozen=True)
class Layout:
    """How the output of a layer holds its maps: after so many extra tokens, on so many places along each side."""

    extra: int
    sides: tuple[int, ...]


def layout(shape: tuple[int, ...], size: tuple[int, ...]) -> Layout | None:
    """The layout of a layer's output, or None where it holds its channels first, or no places at all.

    shape: (B, N, C), N tokens, or (B, h, w, C); size: the (H, W) of the pictures, which fixes the shape of the grid.

    >>> layout((1, 197, 768), (224, 224))
    Layout(extra=1, sides=(14, 14))
    >>> layout((1, 7, 7, 768), (224, 224))
    Layout(extra=0, sides=(7, 7))
    >>> layout((1, 768, 7, 7), (224, 224))
    """
    if len(size) != 2:
        return None
    if len(shape) == 4 and _is_grid(shape[1:3], size) and not _is_grid(shape[2:4], size):
        return Layout(0, tuple(shape[1:3]))
    if len(shape) == 3:
        for extra in _EXTRA:
            for h in range(2, size[0] + 1):
                w, rest = divmod(shape[1] - extra, h)
                if rest == 0 and _is_grid((h, w), size):
                    return Layout(extra, (h, w))
    return None


def _is_grid(sides: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether so many places lie over the picture as squares."""
    (h, w), (high, wide) = sides, size
    return h > 1 and h <= high and high % h == 0 and h * wide == w * high


def as_maps(out: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A layer's output as feature maps (B, C, *s), and the way back from such maps to what the next layer wants.

    Extra tokens are left out of the maps and stay as they are.  Feature maps, and what holds no places, stay too.
    """
    found = layout(tuple(out.shape), size)
    if found is None:
        return out, lambda maps: maps
    if out.dim() == 4:
        return out.movedim(-1, 1), lambda maps: maps.movedim(1, -1)
    tokens = out[:, found.extra :]
    maps = tokens.mT.reshape(len(out), out.shape[2], *found.sides)
    extra = out[:, : found.extra]

    def back(maps: Tensor) -> Tensor:
        return torch.cat([extra.to(maps), maps.flatten(2).mT], 1)

    return maps, back
