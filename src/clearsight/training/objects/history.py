"""The result of one epoch of the training of a detector or a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ObjectEpoch:
    """The result of one epoch, counted from 1.

    loss: the mean over the training pictures, as they were augmented.  measure: what `score` is on val, "AP50" or "mean
    IoU", from 0 to 1, over val_n pictures; seconds: by the clock, processor: of all cores.
    best: its weights are kept, because no epoch before had a higher score, or an equal one with a lower loss.
    """

    number: int
    of: int
    loss: float
    measure: str
    score: float
    val_n: int
    rate: float
    seconds: float
    processor: float
    best: bool

    def line(self) -> str:
        """The epoch for the terminal."""
        return (
            f"epoch {self.number} of {self.of}: loss {self.loss:.3f}, {self.measure} {100 * self.score:.1f} % on "
            f"{self.val_n} pictures of val, {self.seconds:.0f} s{', best so far' if self.best else ''}"
        )


def is_best(score: float, loss: float, history: Sequence[ObjectEpoch]) -> bool:
    """Whether no epoch before had a higher score, or an equal one with a loss as low.

    >>> is_best(0.5, 1.0, [])
    True
    """
    return all((score, -loss) > (e.score, -e.loss) for e in history)
