"""The records of the checklist: one point, and the attacks that were tried on the right answers."""

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
    """One point of the checklist: its question, its status and result, and the rows of the pictures that show it.

    problem: where it does not pass, what is wrong in a few words, for a sentence to quote; advice: what to try then.
    about: what the problem concerns, the gradients themselves, the strength of PGD, or damage that no attack would do.
    """

    number: int
    question: str
    status: Status
    result: str
    problem: str = ""
    advice: str = ""
    rows: tuple[int, ...] = ()
    about: About = "gradients"


@dataclass
class AttackTrials:
    """The attacks that were tried on the right answers (rows), and the pictures that they broke.

    broken: by attack within eps, the attacked pictures by row.  tried: by attack, the rows on which it was tried.
    by_budget: the rows that PGD broke at other budgets, run anew for each.  blind: the attacks that need a gradient and
    found none at the pixels, and so broke nothing.  aimed: by row, the class that an attack aimed at and reached.
    """

    eps: float
    rows: list[int] = field(default_factory=list)
    broken: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    tried: dict[str, set[int]] = field(default_factory=dict)
    by_budget: dict[float, set[int]] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)
    aimed: dict[int, int] = field(default_factory=dict)

    def fooled(self, name: str) -> set[int]:
        return {*self.broken.get(name, {})}

    def union(self) -> set[int]:
        """The rows broken by any attack within eps."""
        return {i for broken in self.broken.values() for i in broken}

    def missed(self) -> list[int]:
        """The rows broken by some attack, and not by PGD."""
        return sorted(self.union() - self.fooled("pgd"))

    def missed_pictures(self) -> list[tuple[int, str, Tensor]]:
        """Each row that PGD missed, with the first attack that broke it and the attacked picture."""
        return [
            next((i, name, pictures_by_row[i]) for name, pictures_by_row in self.broken.items() if i in pictures_by_row)
            for i in self.missed()
        ]

    def table(self) -> list[dict[str, Cell]]:
        return [
            {
                "attack": name,
                "tried on": len(self.tried[name]),
                "broke": len(broken),
                "that PGD missed": len({*broken} - self.fooled("pgd")) if name != "pgd" else None,
            }
            for name, broken in self.broken.items()
        ]


def merge_trials(parts: Sequence[AttackTrials]) -> AttackTrials:
    """The trials of several batches as one."""
    merged = AttackTrials(parts[0].eps)
    for part in parts:
        merged.rows += part.rows
        for name, broken in part.broken.items():
            merged.broken.setdefault(name, {}).update(broken)
            merged.tried.setdefault(name, set()).update(part.tried[name])
        for eps, rows in part.by_budget.items():
            merged.by_budget.setdefault(eps, set()).update(rows)
        merged.blind |= part.blind
        merged.aimed |= part.aimed
    return merged


def pictures(n: int) -> str:
    return f"{n} picture{'' if n == 1 else 's'}"
