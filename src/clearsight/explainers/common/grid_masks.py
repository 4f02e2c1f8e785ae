"""Random masks of RISE and D-RISE: a coarse grid of cells, each kept by chance, enlarged smoothly and shifted.

Petsiuk, Das & Saenko 2018, arXiv:1806.07421, section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.internals.layers import enlarge

BLOCKS = 16  # along each axis, of whose averages a linear model of the score is made


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

    @property
    def _cell(self) -> list[int]:
        """Pixels of a cell along each axis."""
        return [math.ceil(side / n) for side, n in zip(self.sides, self.shape, strict=True)]

    def drawn(self, like: Tensor, rows: Tensor) -> Tensor:
        """A mask (n, *S) in [0, 1] for each of rows (n,), which say of which picture it is; of like's type and device.

        It is drawn where the generators are, on the processor, so that all devices see the same masks.
        """
        return self.enlarged(*self.draw(like, rows), like)

    def draw(self, like: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The cells of such masks that are kept, bool (n, *cells), and their shifts in pixels (n, axes)."""
        grid = self.shape
        # one draw for a mask and its shift together, or the order of draws would depend on the size of a pass
        chance = rng.uniform(like.new_empty(len(rows), math.prod(grid) + len(grid)), rows)
        shifts = (chance[:, -len(grid) :] * like.new_tensor(self._cell)).long()
        return (chance[:, : -len(grid)] < self.keep).view(-1, *grid), shifts

    def enlarged(self, kept: Tensor, shifts: Tensor, like: Tensor) -> Tensor:
        """The masks (n, *S) of cells and shifts, of like's type."""
        size = tuple((n + 1) * c for n, c in zip(self.shape, self._cell, strict=True))
        large = enlarge(kept.to(like), size)
        return torch.stack([_cut(m, shift, self.sides) for m, shift in zip(large, shifts.tolist(), strict=True)])

    def averages(self, mask: Tensor) -> Tensor:
        """The mean of masks (n, *S) in each of `blocks` (n, *blocks), less what it is over all masks there are."""
        pool = getattr(nn.functional, f"adaptive_avg_pool{len(self.sides)}d")
        means: Tensor = pool(mask[:, None], self.blocks)[:, 0]
        return means - self.keep

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of pixels along each axis whose averages describe a mask."""
        return tuple(min(BLOCKS, side) for side in self.sides)

    def mean_product(self, slopes: Tensor) -> Tensor:
        """The mean, over all masks there are, of a mask times a weighted sum of its averages.

        slopes (D, *blocks): the weights -> (D, *S), float64.  Cells are kept independently and axes are shifted
        independently, so that the covariance of a mask with its averages is keep (1 - keep) times a factor for each
        axis: the mean over the shifts of what a pixel and a block take of the same cells.
        """
        product = slopes.double().cpu()
        for side, cells, cell, blocks in zip(self.sides, self.shape, self._cell, self.blocks, strict=True):
            of_cells = torch.eye(cells, dtype=torch.float64)
            large = enlarge(of_cells, ((cells + 1) * cell,))  # (cells, places)
            windows = large.unfold(1, side, 1)[:, :cell]  # (cells, shifts, side)
            means = nn.functional.adaptive_avg_pool1d(windows, blocks)
            product = torch.tensordot(product, torch.einsum("csp,csb->bp", windows, means) / cell, ([1], [0]))
        return self.keep * (1 - self.keep) * product


def _cut(mask: Tensor, start: list[int], sides: tuple[int, ...]) -> Tensor:
    return mask[tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))]
