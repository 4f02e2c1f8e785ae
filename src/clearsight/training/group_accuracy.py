"""How often a model is right in each group of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, share, span
from clearsight.core.statistics import wilson
from clearsight.reporting.findings import Cell, Finding, Table
from clearsight.training.grouping import Grouping
from clearsight.training.history import Epoch
from clearsight.training.training_data import TrainingData


@dataclass(frozen=True)
class GroupAccuracy:
    """A model is right on ``right`` of n pictures of a group."""

    group: str
    right: int
    n: int

    @property
    def share(self) -> float:
        return self.right / self.n

    def row(self) -> dict[str, Cell]:
        """The group as a row of a table."""
        return {"group": self.group, "right": self.share, **bounds(wilson(self.right, self.n)), "n": self.n}

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for metrics.json."""
        return {"right": self.right, "n": self.n, "value": self.share, "interval": wilson(self.right, self.n)}


def group_accuracies(grouping: Grouping, rows: Sequence[int], right: Sequence[bool]) -> list[GroupAccuracy]:
    """Each group that has some of these pictures, the one that is right least often first.

    rows: pictures; right: whether the model is right on each.
    """
    correct = [0] * len(grouping.names)
    for group, hit in zip(grouping.of[list(rows)].tolist(), right, strict=True):
        if group >= 0:
            correct[group] += hit
    counts = zip(grouping.names, correct, grouping.sizes(rows), strict=True)
    found = [GroupAccuracy(name, k, n) for name, k, n in counts if n]
    return sorted(found, key=lambda g: (g.share, -g.n, g.group))


def judged_groups(case: Case, data: TrainingData) -> list[GroupAccuracy]:
    """The accuracy in each group of the pictures of a case; none where the data has no groups."""
    if data.grouping is None:
        return []
    number = {p.name: i for i, p in enumerate(data.pictures)}
    return group_accuracies(data.grouping, [number[p.name] for p in case.pictures], case.right.tolist())


def with_groups(finding: Finding, groups: Sequence[GroupAccuracy], part: str) -> Finding:
    """The finding on a training run with the accuracy in each group, which its headline says of the worst one."""
    if not groups:
        return finding
    worst = groups[0]
    table = Table(f"Right in each group of {part}, the worst first", tuple(g.row() for g in groups))
    return replace(
        finding,
        headline=f"{finding.headline[:-1]}; in the worst group of {part} ({worst.group}) {share(worst.share)} "
        f"({span(wilson(worst.right, worst.n), worst.n)}).",
        tables=(table, *finding.tables),
    )


def worst_group(epoch: Epoch, grouping: Grouping, data: TrainingData, logits: Tensor) -> Epoch:
    """The epoch with what it does in its worst group of val.  logits (n, K): of the pictures of val."""
    rows = data.rows("val")
    right = data.y[rows].gather(1, logits.argmax(1, keepdim=True))[:, 0] > 0
    worst = group_accuracies(grouping, rows, right.tolist())[0]
    return replace(epoch, worst_right=worst.right, worst_n=worst.n, worst_group=worst.group)
