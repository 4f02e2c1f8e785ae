"""What is added up over random masks: a map for each score, and how far it may be from that of all masks there are.

Nothing is kept of a mask once it is added.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HELD = 16  # masks whose products are one product of matrices, in their own precision; more fill a processor's cache


class MaskSums:
    """Sums over masks (n, *S), and over the D scores of the picture that is seen through each.

    masks: how many were added.
    """

    def __init__(self, scores: int, sides: tuple[int, ...], device: torch.device) -> None:
        self.sides, self.masks = sides, 0
        # the first and second powers of both, and every product of these, for the variance of a product
        self._mask = torch.zeros(2, math.prod(sides), dtype=torch.float64, device=device)
        self._score = torch.zeros(2, scores, dtype=torch.float64, device=device)
        self._both = torch.zeros(2, 2, scores, math.prod(sides), dtype=torch.float64, device=device)
        self._held: list[tuple[Tensor, Tensor]] = []

    def add(self, mask: Tensor, score: Tensor) -> None:
        """Masks (n, *S), and the scores (n, D) of the picture seen through each."""
        self._held.append((mask.flatten(1), score))
        self.masks += len(mask)
        if sum(len(m) for m, _ in self._held) >= HELD:
            self._add_held()

    def _add_held(self) -> None:
        if not self._held:
            return
        mask, score = (torch.cat(part) for part in zip(*self._held, strict=True))
        self._held.clear()
        powers = torch.stack([score, score.square()])  # (2, n, D)
        self._score += powers.double().sum(1)
        for power, masks in enumerate((mask, mask.square())):
            self._mask[power] += masks.sum(0)
            self._both[:, power] += (powers.transpose(1, 2).flatten(0, 1) @ masks).view(2, -1, masks.shape[1])

    def map(self, *, centred: bool) -> Tensor:
        """The mean of mask times score, (D, *S); centred: of the score less its mean."""
        self._add_held()
        n = self.masks
        total = self._both[0, 0] / n
        if centred:
            total = total - self._score[0][:, None] / n * self._mask[0] / n
        return total.view(-1, *self.sides)

    def standard_error(self, *, centred: bool) -> Tensor:
        """How far the map may be from that of all masks there are, (D, *S): one standard deviation of its mean."""
        n, mean = self.masks, self.map(centred=centred).flatten(1)
        ((sm, sm2), (s2m, s2m2)) = self._both / n
        square: Tensor = s2m2
        if centred:  # the mean of (s - a)^2 (m - b)^2, written out
            (a, s2), (b, m2) = (self._score / n)[..., None], self._mask / n
            square = s2m2 - 2 * b * s2m + b * b * s2 - 2 * a * sm2 + 4 * a * b * sm + a * a * m2 - 3 * a * a * b * b
        return ((square - mean * mean).clamp_min(0) / max(n - 1, 1)).sqrt().view(-1, *self.sides)

    def estimate(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """The map and its standard error, (D, *S) each."""
        return self.map(centred=centred), self.standard_error(centred=centred)


def share_of_range(error: Tensor, found: Tensor) -> Tensor:
    """Errors (D, *S), averaged over places, as shares of the range of maps (D, *S): (D,), inf or NaN without one."""
    share: Tensor = error.flatten(1).mean(1) / (found.flatten(1).amax(1) - found.flatten(1).amin(1))
    return share
