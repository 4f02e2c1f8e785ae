"""What checks measure picture by picture, before and after, on the pictures that both runs measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from clearsight.core.statistics import Interval, bootstrap
from clearsight.reporting.findings import Cell, Finding, named_in
from clearsight.reporting.report import Report

ON_THE_OBJECT = "relevance on the object"
ON_THE_MARKS = "relevance on the marked characters"
Row = Mapping[str, Cell]


@dataclass(frozen=True)
class Measure:
    """What a check says of each picture.

    value: a row of its table by picture -> 0 to 1, or None where the row does not say it.
    of_maps: whether it depends on the explainer.
    """

    check: str
    words: str
    value: Callable[[Row], float | None]
    of_maps: bool


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
    of_maps: bool

    @property
    def gain(self) -> float:
        return self.after - self.before


def _share(column: str, row: Row) -> float | None:
    cell = row.get(column)
    return float(cell) if isinstance(cell, int | float) else None


def _says(column: str, word: str, row: Row) -> float | None:
    return float(row[column] == word) if column in row else None


def _kept(row: Row) -> float | None:
    """The share of damages that leave the answer as it is."""
    lost, tried = row.get("lost"), row.get("of")
    return 1 - lost / tried if isinstance(lost, int) and isinstance(tried, int) and tried else None


MEASURES = (
    Measure("trustworthiness", "acceptable reasons", partial(_says, "reason", "acceptable"), True),
    Measure("trustworthiness", f"{ON_THE_OBJECT}, right answers", partial(_share, "focus"), True),
    Measure("localisation", ON_THE_OBJECT, partial(_share, "on the object"), True),
    Measure("localisation", ON_THE_MARKS, partial(_share, "on the marked characters"), True),
    Measure("localisation", "highest point on the object", partial(_share, "highest point on it"), True),
    Measure("robustness", "right answers that no attack changed", partial(_says, "fooled at eps", "never"), False),
    Measure("corruptions", "damages that leave right answers right", _kept, False),
)


def paired_measures(before: Report, after: Report, seed: int, thing: str = "picture") -> list[PairedMeasure]:
    """Every measure that both reports hold by picture, or text (thing), with the same options of the check."""
    checks = {f.check: f for f in before.findings}
    pairs = [(checks[f.check], f) for f in after.findings if f.check in checks]
    measured = [_paired(m, *pair, seed) for pair in pairs for m in MEASURES if pair[0].name == m.check]
    found = [m for m in measured if m is not None]
    if thing == "text":
        return [replace(m, words=m.words.replace("the object", "the marked characters")) for m in found]
    return found


def _paired(measure: Measure, before: Finding, after: Finding, seed: int) -> PairedMeasure | None:
    """The measure on the pictures that both findings have; None where there is none."""
    first, second = _values(measure, before), _values(measure, after)
    names = sorted(first.keys() & second.keys())
    if not names:
        return None
    differences = [second[name] - first[name] for name in names]
    means = fmean(first[name] for name in names), fmean(second[name] for name in names)
    interval = bootstrap(differences, seed)
    return PairedMeasure(after.check, measure.words, means[0], means[1], interval, len(names), measure.of_maps)


def _values(measure: Measure, finding: Finding) -> dict[str, float]:
    """Picture -> value, from the finding's table by picture."""
    rows = [(name, row) for table in finding.tables for row in table.rows if (name := named_in(row)) is not None]
    values = {name: measure.value(row) for name, row in rows}
    return {name: value for name, value in values.items() if value is not None}
