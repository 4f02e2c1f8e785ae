"""The tables of a repair that count pictures and compare shares, and the chart of margins before and after."""

from __future__ import annotations

from collections.abc import Sequence

from clearsight.auditing.evidence import bounds
from clearsight.comparing.outcomes import Outcomes, PairedAnswer
from clearsight.comparing.paired_measures import PairedMeasure
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.reporting.findings import Cell, Figure, Table

DOTS = 1000  # of a kind are drawn at most


def outcome_table(outcomes: Outcomes, thing: str) -> Table:
    """How many pictures, or texts (thing), were mended and broken, and are right or wrong in both."""
    counts = {
        "mended: wrong before, right after": len(outcomes.mended),
        "broken: right before, wrong after": len(outcomes.broken),
        "right in both": outcomes.right_in_both,
        "wrong in both": len(outcomes.wrong),
    }
    n = outcomes.n
    rows = [{f"{thing}s that are": word, "n": k, "share": k / n, **bounds(wilson(k, n))} for word, k in counts.items()]
    return Table(f"What became of the {thing}s", tuple(rows))


def rows_of(answers: Sequence[PairedAnswer], thing: str) -> list[dict[str, Cell]]:
    """The rows of a table of answers, each of which names its picture or text."""
    return [{thing if k == "picture" else k: v for k, v in a.row().items()} for a in answers]


def measure_rows(outcomes: Outcomes, measures: Sequence[PairedMeasure]) -> list[dict[str, Cell]]:
    """Accuracy and every other share, before and after, over the same pictures."""
    accuracy = PairedMeasure(
        "accuracy", "right answers", outcomes.before, outcomes.after, outcomes.interval, outcomes.n, False
    )
    return [
        {
            "check": m.check,
            "share": m.words,
            "before": m.before,
            "after": m.after,
            "difference": m.gain,
            **bounds(m.interval),
            "n": m.n,
        }
        for m in (accuracy, *measures)
    ]


def margins_figure(outcomes: Outcomes, thing: str) -> tuple[Figure, ...]:
    """Margin after against margin before, where both runs are models."""
    kinds = {
        "mended": outcomes.mended,
        "broken": outcomes.broken,
        "right in both": outcomes.right,
        "wrong in both": outcomes.wrong,
    }
    margins = {word: _margins(answers) for word, answers in kinds.items()}
    if sum(map(len, margins.values())) < outcomes.n:
        return ()
    groups = [charts.Group(f"{len(m)} {word}", m[:: 1 + len(m) // DOTS]) for word, m in margins.items()]
    mended, broken, right, wrong = groups
    thinned = "" if outcomes.n < DOTS else f" Of a kind with {DOTS} {thing}s or more only some are drawn."
    return (
        Figure(
            "repair.svg",
            charts.quadrants(mended, broken, (right, wrong), xlabel="margin before", ylabel="margin after"),
            f"One dot for each {thing}. Upper left: mended; lower right: broken; the further from the diagonal, the "
            f"more the run changed.{thinned}",
            f"{counted(outcomes.n, thing)} by margin before and after: {', '.join(g.name for g in groups)}.",
        ),
    )


def _margins(answers: Sequence[PairedAnswer]) -> list[tuple[float, float]]:
    """(before, after) of each picture; empty for audits."""
    margins = [(a.before.margin, a.after.margin) for a in answers if a.before is not None and a.after is not None]
    return [(before, after) for before, after in margins if before is not None and after is not None]
