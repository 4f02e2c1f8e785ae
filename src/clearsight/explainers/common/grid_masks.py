"""Random masks of RISE and D-RISE: a coarse grid of cells, each kept by chance, enlarged smoothly and shifted.

Petsiuk, Das & Saenko 2018, arXiv:1806.07421, section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.internals.layers import enlarge


@dataclass(frozen=True)
class MaskGrid:
    """A grid of cells over pictures of some sides *S, and how likely each cell is kept.

    It is enlarged to one cell more along each axis, and cut to the picture at a shift of less than a cell.
    """

    sides: tuple[int, ...]
    cells: int
    keep: float

    @property
    def shape(self) -> list[int]:
        """Cells along each axis: no more than there are pixels."""
        return [min(self.cells, side) for side in self.sides]

    def drawn(self, like: Tensor, rows: Tensor) -> Tensor:
        """A mask (n, *S) in [0, 1] for each of rows (n,), which say of which picture it is; of like's type and device.

        It is drawn where the generators are, on the processor, so that all devices see the same masks.
        """
        grid = self.shape
        cell = [math.ceil(side / n) for side, n in zip(self.sides, grid, strict=True)]
        size = tuple((n + 1) * c for n, c in zip(grid, cell, strict=True))
        # one draw for a mask and its shift together, or the order of draws would depend on the size of a pass
        chance = rng.uniform(like.new_empty(len(rows), math.prod(grid) + len(grid)), rows)
        shifts = (chance[:, -len(grid) :] * like.new_tensor(cell)).long().tolist()
        large = enlarge((chance[:, : -len(grid)] < self.keep).to(like).view(-1, *grid), size)
        return torch.stack([_cut(m, shift, self.sides) for m, shift in zip(large, shifts, strict=True)])


def _cut(mask: Tensor, start: list[int], sides: tuple[int, ...]) -> Tensor:
    return mask[tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))]
