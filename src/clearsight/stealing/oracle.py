"""The victim as a thief sees it: answers, counted, with a hard stop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clearsight.core.access import classes_told, told
from clearsight.core.answering import Account, Withheld
from clearsight.core.blackbox import OutOfQueries
from clearsight.core.catalogue import Call
from clearsight.errors import Refused
from clearsight.runner.answer import answer
from clearsight.stealing.victim import Victim

REQUEST = 10  # pictures of one request
ACCESSES = "labels, probs or top-5"


def check_access(access: str, digits: int | None) -> int | None:
    """How many classes an answer tells, None for all.  Refused: what no service tells, and digits of a label.

    >>> check_access("top-5", None), check_access("labels", None)
    (5, None)
    """
    if access not in ("labels", "label", "probs") and not re.fullmatch(r"top-[1-9]\d*", access):
        raise Refused(f"access {access!r}", f"give what a service tells: {ACCESSES}")
    if access in ("labels", "label"):
        if digits is not None:
            raise Refused(f"digits={digits}", "give them with probabilities alone (access probs or top-5)")
        return None
    return classes_told(access, digits)


@dataclass(eq=False)
class Oracle:
    """A victim that answers a thief's questions and counts them: pictures that got an answer are paid for.

    victim: who answers.  budget: how many answers there are in all.  access: "probs", "labels", or "top-5" (or another
    number).  digits: decimals of the probabilities.  defences: calls of answer defences.  accounts: as which the thief
    asks, in turn.

    used: answers paid so far.  refused: what was said where an account got no answer.
    """

    victim: Victim
    budget: int
    access: str = "probs"
    digits: int | None = None
    defences: Sequence[Call] = ()
    accounts: int = 1
    used: int = 0
    refused: list[str] = field(default_factory=list)
    _memory: list[Account] = field(init=False)
    _closed: set[int] = field(init=False, default_factory=set)
    _turn: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.budget < 1 or self.accounts < 1:
            raise Refused(f"budget={self.budget}, accounts={self.accounts}", "give at least 1 of each")
        self._top = check_access(self.access, self.digits)
        self._memory = [Account() for _ in range(self.accounts)]

    @property
    def left(self) -> int:
        return self.budget - self.used

    @property
    def is_closed(self) -> bool:
        """Whether no account gets an answer any more."""
        return len(self._closed) == self.accounts

    def noticed(self) -> int:
        """Of how many accounts a defence has noticed that they steal."""
        return sum(any(m.get("flagged") for m in account.memory.values()) for account in self._memory)

    def ask(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (n, C, *S) that were answered, as they were sent, and what was told of them, (n, K).

        x (N, C, *S): they are rounded to 8 bits, as files are.  Fewer than N come back where the budget ends, or where
        every account is refused.  Raises OutOfQueries where none is left at all.
        """
        if not self.left or self.is_closed:
            raise OutOfQueries
        sent = (x[: self.left].clamp(0, 1) * 255).round() / 255
        answered, answers = [sent[:0]], [torch.empty(0, len(self.victim.labels))]
        for part in torch.split(sent, REQUEST):
            got, p = self._request(part)
            answered.append(got)
            answers.append(p)
        return torch.cat(answered), torch.cat(answers)

    def _request(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One request, by the next account that is still answered; of one that is refused, each picture by itself."""
        turns = (a % self.accounts for a in range(self._turn, self._turn + self.accounts))
        account = next((a for a in turns if a not in self._closed), None)
        if account is None:
            return x[:0], torch.empty(0, len(self.victim.labels))
        self._turn = account + 1
        try:
            p = self._told(account, x)
        except Withheld as e:
            if len(x) == 1:
                self._closed.add(account)
                self.refused.append(str(e))
                return self._request(x)
            parts = [self._request(picture) for picture in torch.split(x, 1)]
            return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])
        self.used += len(x)
        return x, p

    def _told(self, account: int, x: Tensor) -> Tensor:
        """What the account is told of pictures (B, C, *S): the defences first, then what the access leaves of it."""
        p = self.victim.probabilities(x, account)
        others = [other(x, account) for other in self.victim.others]
        p = answer(self.defences, self._memory[account], x, p, others)
        if self.access in ("labels", "label"):
            return torch.zeros_like(p).scatter(1, p.argmax(1, keepdim=True), 1.0)
        return told(p, p, self._top, self.digits)
