"""A theft under way: what a thief knows when the next pictures to ask about are chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier


@dataclass(eq=False)
class Theft:
    """A theft, as a thief sees it between two rounds of questions.

    pool: pictures (P, C, *S) in [0, 1] of the thief's own that were not asked about yet.
    asked: pictures (N, C, *S) that were asked about.
    answers: what the thief made of the answers, (N, K) shares of the classes.
    clone: the network that learned from these answers; before the first round its weights are random.
    generator: of the thief's random numbers, on the CPU.
    """

    pool: Tensor
    asked: Tensor
    answers: Tensor
    clone: Classifier
    generator: torch.Generator

    @property
    def classes(self) -> int:
        return len(self.clone.labels)

    def drawn(self, n: int, of: int) -> Tensor:
        """At most n different numbers below `of`, in random order."""
        return torch.randperm(of, generator=self.generator)[:n]

    def take(self, rows: Tensor) -> Tensor:
        """Pictures of these rows of the pool, which are no longer in it afterwards."""
        taken = self.pool[rows]
        stays = torch.ones(len(self.pool), dtype=torch.bool)
        stays[rows] = False
        self.pool = self.pool[stays]
        return taken
