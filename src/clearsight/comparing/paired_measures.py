"""Shares that checks measure picture by picture, before and after, on the pictures that both runs measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from clearsight.core.statistics import Interval, bootstrap
from clearsight.reporting.findings import Cell, Finding
from clearsight.reporting.report import Report

ACCEPTABLE = "acceptable reasons"


@dataclass(frozen=True)
class Measure:
    """A column of a check's table by picture.  value: a cell -> 0 to 1, or None where the picture was not measured."""

    check: str
    words: str
    column: str
    value: Callable[[Cell], float | None]


@dataclass(frozen=True)
class PairedMeasure:
    """A measure of both runs: the means over the same n pictures, and their difference with its interval.

    interval: a bootstrap over pictures, of the differences; None where they are too few.
    """

    check: str
    words: str
    before: float
    after: float
    interval: Interval | None
    n: int

    @property
    def gain(self) -> float:
        return self.after - self.before


def _share(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None


def _is_acceptable(cell: Cell) -> float | None:
    return float(cell == "acceptable") if isinstance(cell, str) else None


MEASURES = (
    Measure("trustworthiness", ACCEPTABLE, "reason", _is_acceptable),
    Measure("trustworthiness", "relevance on the object, right answers", "focus", _share),
    Measure("localisation", "relevance on the object", "on the object", _share),
    Measure("localisation", "highest point on the object", "highest point on it", _share),
)


def paired_measures(before: Report, after: Report, seed: int) -> list[PairedMeasure]:
    """Every measure that both reports hold by picture, with the same options of the check."""
    checks = {f.check: f for f in before.findings}
    pairs = [(checks[f.check], f) for f in after.findings if f.check in checks]
    measured = [_paired(m, *pair, seed) for pair in pairs for m in MEASURES if pair[0].name == m.check]
    return [m for m in measured if m is not None]


def _paired(measure: Measure, before: Finding, after: Finding, seed: int) -> PairedMeasure | None:
    """The measure on the pictures that both findings have; None where there is none."""
    first, second = _values(measure, before), _values(measure, after)
    names = sorted(first.keys() & second.keys())
    if not names:
        return None
    differences = [second[name] - first[name] for name in names]
    means = fmean(first[name] for name in names), fmean(second[name] for name in names)
    return PairedMeasure(after.check, measure.words, means[0], means[1], bootstrap(differences, seed), len(names))


def _values(measure: Measure, finding: Finding) -> dict[str, float]:
    """Picture -> value, from the finding's table by picture."""
    rows = [row for table in finding.tables for row in table.rows if "picture" in row and measure.column in row]
    values = {str(row["picture"]): measure.value(row[measure.column]) for row in rows}
    return {name: value for name, value in values.items() if value is not None}
