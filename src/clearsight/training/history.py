"""The result of one epoch of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch.

    number: from 1; 0 is the first model, whose head alone was fitted, to pictures that were not augmented.
    loss: the mean over the training pictures, as they were augmented.  val_loss: the negative
    log-likelihood on val, in nats; val_right of val_n pictures are right.  rate: the head's last learning rate.
    best: no epoch before had a lower val_loss, so its weights are kept.  trained: how many parameters.
    """

    number: int
    of: int
    loss: float
    val_loss: float
    val_right: int
    val_n: int
    rate: float
    trained: int
    seconds: float
    best: bool

    def line(self) -> str:
        """The epoch for the terminal."""
        share = self.val_right / self.val_n
        name = f"epoch {self.number} of {self.of}" if self.number else "first model, the head alone"
        mark = ", best so far" if self.best and self.number else ""
        return (
            f"{name}: loss {self.loss:.3f}, val {self.val_loss:.3f}, "
            f"{100 * share:.1f} % of {self.val_n} right, {self.seconds:.0f} s{mark}"
        )


def since_best(history: Sequence[Epoch]) -> int:
    """How many epochs ended behind the one whose weights are kept."""
    return len(history) - 1 - max((i for i, e in enumerate(history) if e.best), default=-1)
