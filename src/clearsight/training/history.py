"""The result of one epoch of training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch.

    number: from 1.  loss: the mean over the training pictures, as they were augmented.  val_loss: the negative
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
        return (
            f"epoch {self.number} of {self.of}: loss {self.loss:.3f}, val {self.val_loss:.3f}, "
            f"{100 * share:.1f} % of {self.val_n} right, {self.seconds:.0f} s{', best so far' if self.best else ''}"
        )
