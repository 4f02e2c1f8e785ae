"""What a defence of a model's answers may look at besides the probabilities, and how it withholds an answer."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clearsight.errors import Refused


class Withheld(Refused):
    """An account gets no answer: its queries are spent, or they look like theft.

    defence: the name of the defence that withholds it.
    """

    def __init__(self, defence: str, what: str, fix: str = "") -> None:
        super().__init__(what, fix)
        self.args = (defence, what, fix)  # which copies and pickles are made of
        self.defence = defence


@dataclass(frozen=True, eq=False)
class Request:
    """One request for answers, as a defence sees it.

    x: the pictures (B, C, *S) in [0, 1] that the network is given, before normalisation.
    others: probabilities (B, K) of the same pictures by other networks of the same classes, where there are any.
    memory: what the defence keeps of this account from one request to the next; empty at the first.
    """

    x: Tensor
    others: tuple[Tensor, ...] = ()
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Account:
    """One who asks: what each defence remembers of the requests, by the defence's spelling.

    Whoever serves keeps one for each key, whoever tests a theft keeps them in the process.  One request at a time is
    answered: lock is held meanwhile, so that budgets are exact with many threads.
    """

    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def of(self, spelling: str) -> dict[str, Any]:
        """What the defence of that spelling remembers; it may write into it."""
        return self.memory.setdefault(spelling, {})
