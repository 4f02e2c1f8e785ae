"""Accuracy before and after in each group of pictures, by the columns of their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clearsight.auditing.evidence import share
from clearsight.comparing.outcomes import Outcomes
from clearsight.core.statistics import paired_gap
from clearsight.data.columns import grouping_columns
from clearsight.data.datasets import Pictures
from clearsight.reporting.findings import Cell

FEWEST = 3  # labelled pictures, below which a group is shown but is not called the worst


@dataclass(frozen=True)
class PairedGroup:
    """The labelled pictures with one word in a column: how many became what."""

    column: str
    group: str
    both: int
    mended: int
    broken: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.mended + self.broken + self.neither

    @property
    def before(self) -> float:
        """The share of right answers before."""
        return (self.both + self.broken) / self.n

    @property
    def after(self) -> float:
        """The share of right answers after."""
        return (self.both + self.mended) / self.n

    def row(self) -> dict[str, Cell]:
        low, high = paired_gap(self.both, self.mended, self.broken, self.neither)
        return {
            "column": self.column,
            "group": self.group,
            "n": self.n,
            "right before": self.before,
            "right after": self.after,
            "mended": self.mended,
            "broken": self.broken,
            "difference": self.after - self.before,
            "from (95 %)": low,
            "to (95 %)": high,
        }


def paired_groups(outcomes: Outcomes, pictures: Pictures) -> list[PairedGroup]:
    """Every group of every column that groups the pictures, the least accurate after first."""
    kinds = [{a.picture for a in kind} for kind in (outcomes.right, outcomes.mended, outcomes.broken, outcomes.wrong)]
    labelled = [p for p in pictures.pictures if any(p.name in kind for kind in kinds)]
    found = []
    for column in grouping_columns([p.columns for p in labelled]):
        for group in sorted({p.columns.get(column, "") for p in labelled} - {""}):
            names = {p.name for p in labelled if p.columns.get(column) == group}
            found.append(PairedGroup(column, group, *(len(names & kind) for kind in kinds)))
    return sorted(found, key=lambda g: (g.after, g.column, g.group))


def worst_groups(groups: Sequence[PairedGroup]) -> tuple[str, ...]:
    """A sentence for each column: its least accurate group before, and after."""
    sentences = []
    for column in dict.fromkeys(g.column for g in groups):
        of_column = [g for g in groups if g.column == column and g.n >= FEWEST]
        if len(of_column) < 2:
            continue
        before, after = min(of_column, key=lambda g: g.before), min(of_column, key=lambda g: g.after)
        sentences.append(
            f"Worst group by {column}: before, {before.group} with {share(before.before)} of {before.n} right; after, "
            f"{after.group} with {share(after.after)} of {after.n}."
        )
    return tuple(sentences)
