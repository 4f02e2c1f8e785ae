"""The result of one epoch of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Numbered(Protocol):
    """An epoch of any kind of model: its number, and whether it was the best so far."""

    @property
    def number(self) -> int: ...

    @property
    def best(self) -> bool: ...


E = TypeVar("E", bound=Numbered)


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch.

    number: from 1; 0 is the first model, whose head alone was fitted, to pictures that were not augmented.
    loss: the mean over the training pictures, as they were augmented.  val_loss: the negative
    log-likelihood on val, in nats; val_right of val_n pictures are right.  rate: the head's last learning rate.
    best: its weights are kept, because no epoch before had a lower val_loss; where there are groups, a higher share of
    worst_right, and where training is against an attack, of robust_right, equal ones with a lower val_loss.  trained:
    how many parameters.
    worst_right of worst_n pictures of val are right in the group whose share is least; None where there are no groups.
    robust_right of robust_n pictures of val are right under pgd within the budget of the attack that is trained
    against; None where there is none.  collapsed: far fewer of them than in an epoch before.
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
    robust_right: int | None = None
    robust_n: int = 0
    collapsed: bool = False
    worst_right: int | None = None
    worst_n: int = 0
    worst_group: str = ""

    def line(self) -> str:
        """The epoch for the terminal."""
        share = self.val_right / self.val_n
        name = f"epoch {self.number} of {self.of}" if self.number else self._of_the_head()
        mark = ", best so far" if self.best and self.number else ""
        return (
            f"{name}: loss {self.loss:.3f}, val {self.val_loss:.3f}, "
            f"{100 * share:.1f} % of {self.val_n} right{self._in_worst_group()}{self._under_attack()}, "
            f"{self.seconds:.0f} s{mark}"
        )

    def _of_the_head(self) -> str:
        return "first model, the head alone" if self.of else "the last layer, fitted anew"

    def _in_worst_group(self) -> str:
        if self.worst_right is None:
            return ""
        return f", {100 * self.worst_right / self.worst_n:.1f} % of {self.worst_n} in ({self.worst_group})"

    def _under_attack(self) -> str:
        if self.robust_right is None:
            return ""
        fell = ": it fell, catastrophic overfitting" if self.collapsed else ""
        return f", {100 * self.robust_right / self.robust_n:.1f} % of {self.robust_n} under attack{fell}"


def is_best(epoch: Epoch, history: Sequence[Epoch]) -> bool:
    """Whether no epoch before was better: right more often under attack, or in the worst group, where there are such,
    else with a lower loss.

    >>> a = Epoch(1, 2, 1.0, 0.5, 5, 9, 0.1, 3, 1.0, True)
    >>> is_best(Epoch(2, 2, 1.0, 0.4, 5, 9, 0.1, 3, 1.0, False), [a])
    True
    """
    return all(_rank(epoch) > _rank(e) for e in history)


def _rank(epoch: Epoch) -> tuple[int, float, float]:
    return (epoch.robust_right or 0, (epoch.worst_right or 0) / max(epoch.worst_n, 1), -epoch.val_loss)


def best_of(history: Sequence[E]) -> E:
    """The epoch whose weights are kept: the last of those that were the best so far."""
    return max((e for e in history if e.best), key=lambda e: e.number)


def since_best(history: Sequence[Numbered]) -> int:
    """How many epochs ended behind the one whose weights are kept."""
    return len(history) - 1 - max((i for i, e in enumerate(history) if e.best), default=-1)
