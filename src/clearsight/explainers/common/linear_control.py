"""A control variate for scores of random masks: what of them is linear in the masks, and known without them.

Owen 2013, Monte Carlo theory, methods and examples, chapter 8.9 (regression-based control variates), each slope fitted
without the mask that it is used for, so that the mean stays what it is.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from clearsight.explainers.common.grid_masks import MaskGrid
from clearsight.explainers.common.mask_sums import HELD, MaskSums

MOST = 2048  # masks of one fit; of more masks several are made, so that memory does not grow with them


def without_linear_part(averages: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores less what a ridge regression fitted to all other masks says of them, and its slopes, averaged over masks.

    averages (n, p): of each mask, with mean 0 over all masks there are; scores (n, D) -> (n, D) and (p, D), float64
    on the processor.  The penalty is as strong as if the linear part and the rest had the same variance and every slope
    counted alike.  The fits without one mask follow from that with all (Allen 1974,
    doi:10.1080/00401706.1974.10489157).

    >>> z = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    >>> rest, slopes = without_linear_part(z, 0.5 + z)
    >>> [round(v, 4) for v in rest[:, 0].tolist()], round(float(slopes), 4)  # without a mask the slope is 3 / 4
    ([0.75, 0.25, 0.75, 0.25], 0.75)
    """
    z, y = averages.cpu().double(), scores.cpu().double()
    middle = y.mean(0)
    gram = z.mT @ z
    penalty = gram.trace() / len(z)
    inverse = torch.linalg.inv(gram + penalty * torch.eye(len(gram), dtype=z.dtype))
    slopes = inverse @ (z.mT @ (y - middle))
    rest = (y - middle - z @ slopes) / (1 - ((z @ inverse) * z).sum(1))[:, None]
    return rest + middle, slopes - inverse @ (z.mT @ rest) / len(z)


class ControlledSums:
    """`MaskSums`, where control is asked for of scores less what is linear in the masks; that part's mean is known.

    masks: how many were added.
    """

    def __init__(self, scores: int, grid: MaskGrid, like: Tensor, masks: int, *, control: bool) -> None:
        """scores: D, of each mask.  like: of the type and on the device of the masks.  masks: how many may come."""
        self.grid, self.masks, self._like, self._control = grid, 0, like, control
        self._most = math.ceil(masks / math.ceil(masks / MOST))  # fits of equal size
        self._sums = MaskSums(scores, grid.sides, like.device)
        self._slopes = torch.zeros(scores, *grid.blocks, dtype=torch.float64)  # summed over masks
        self._held: list[tuple[Tensor, ...]] = []

    def add(self, kept: Tensor, shifts: Tensor, mask: Tensor, score: Tensor) -> None:
        """Masks (n, *S) with their cells (n, *cells) and shifts (n, axes), and the scores (n, D) seen through them.

        With control the cells and the averages of a mask are held until the next fit.
        """
        self.masks += len(mask)
        if not self._control:
            self._sums.add(mask, score)
            return
        self._held.append((kept, shifts, self.grid.averages(mask).flatten(1), score))
        if sum(len(part[0]) for part in self._held) >= self._most:
            self._sums, self._slopes = self._with_held()
            self._held.clear()

    def _with_held(self) -> tuple[MaskSums, Tensor]:
        """The sums of all masks, those that are held included."""
        if not self._held:
            return self._sums, self._slopes
        sums = copy.deepcopy(self._sums)
        kept, shifts, averages, score = (torch.cat(part) for part in zip(*self._held, strict=True))
        rest, slopes = without_linear_part(averages, score)
        for start in range(0, len(kept), HELD):
            rows = slice(start, start + HELD)
            sums.add(self.grid.enlarged(kept[rows], shifts[rows], self._like), rest[rows].to(self._like))
        return sums, self._slopes + len(kept) * slopes.mT.view_as(self._slopes)

    def estimate(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """As `MaskSums.estimate`."""
        sums, slopes = self._with_held()
        found, error = sums.estimate(centred=centred)
        return found + self.grid.mean_product(slopes / self.masks).to(found), error
