"""One point of the checklist, and what was tried on each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from clearsight.reporting.findings import Cell

Status = Literal["pass", "flag", "fail", "not asked"]
About = Literal["gradients", "strength", "nature"]


@dataclass(frozen=True)
class Point:
    """What is asked, what came of it, the pictures that show it, and what to try next where it does not pass.

    says: in a few words what is wrong where it does not pass, for a sentence to quote.  about: what that speaks of, the
    gradients themselves, the strength of PGD, or damage that no attack would do.
    """

    number: int
    question: str
    status: Status
    told: str
    says: str = ""
    next: str = ""
    rows: tuple[int, ...] = ()
    about: About = "gradients"


@dataclass
class AttackTrials:
    """What broke which of the right answers (rows).

    broke: for each thing tried within eps, the attacked pictures by row.  asked: the rows on which it was tried.
    by_budget: which rows PGD broke at other budgets, run anew for each.  blind: what needs a gradient and found none at
    the pixels, and so broke nothing.  aimed: the class that a row was made to say by an attack that aimed at it.
    """

    eps: float
    rows: list[int] = field(default_factory=list)
    broke: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    asked: dict[str, set[int]] = field(default_factory=dict)
    by_budget: dict[float, set[int]] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)
    aimed: dict[int, int] = field(default_factory=dict)

    def fooled(self, name: str) -> set[int]:
        return {*self.broke.get(name, {})}

    def union(self) -> set[int]:
        """Broken by anything within eps."""
        return {i for found in self.broke.values() for i in found}

    def missed(self) -> list[int]:
        """Broken by something, and not by PGD."""
        return sorted(self.union() - self.fooled("pgd"))

    def besides(self) -> list[tuple[int, str, Tensor]]:
        """Each picture that PGD missed, with the first thing that broke it and what it made of it."""
        return [next((i, name, found[i]) for name, found in self.broke.items() if i in found) for i in self.missed()]

    def table(self) -> list[dict[str, Cell]]:
        return [
            {
                "attack": name,
                "tried on": len(self.asked[name]),
                "broke": len(found),
                "that PGD missed": len({*found} - self.fooled("pgd")) if name != "pgd" else None,
            }
            for name, found in self.broke.items()
        ]


def joined(parts: Sequence[AttackTrials]) -> AttackTrials:
    """What was tried on several batches, as one."""
    whole = AttackTrials(parts[0].eps)
    for part in parts:
        whole.rows += part.rows
        for name, found in part.broke.items():
            whole.broke.setdefault(name, {}).update(found)
            whole.asked.setdefault(name, set()).update(part.asked[name])
        for eps, rows in part.by_budget.items():
            whole.by_budget.setdefault(eps, set()).update(rows)
        whole.blind |= part.blind
        whole.aimed |= part.aimed
    return whole


def pictures(n: int) -> str:
    return f"{n} picture{'' if n == 1 else 's'}"
