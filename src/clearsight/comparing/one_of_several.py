"""The runs of a comparison, one after the other: models are judged, audits keep the findings that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from clearsight.comparing.sources import RunToCompare
from clearsight.core.catalogue import Call
from clearsight.core.progress import Progress
from clearsight.errors import Refused
from clearsight.reporting.report import Report

Answers = TypeVar("Answers")


@dataclass(frozen=True, eq=False)
class JudgedRun(Generic[Answers]):
    """One run.  answers: what its model says of the pictures; None for an audit, which does not keep it."""

    name: str
    report: Report
    answers: Answers | None


def judged_runs(
    compared: Sequence[RunToCompare],
    calls: Sequence[Call] | None,
    judge: Callable[[RunToCompare, Progress], tuple[Report, Answers]],
    tell: Progress,
) -> Iterator[JudgedRun[Answers]]:
    """Each run with its report, and what a model answers.

    Args:
        compared: the runs.
        calls: the checks whose findings are kept of audits; None keeps all.
        judge: judges a model; it is called with the run and with its part of the progress.
        tell: the progress of all models.

    Refused: an audit without any of these checks.
    """
    models = [run.name for run in compared if run.report is None]
    for run in compared:
        if run.report is None:
            report, answers = judge(run, _progress_of_run(tell, models.index(run.name), len(models)))
            yield JudgedRun(run.name, report, answers)
        else:
            yield JudgedRun(run.name, select_findings(run, calls), None)


def _progress_of_run(tell: Progress, k: int, of: int) -> Progress:
    """The progress of one run as a part of that of all."""
    return lambda what, done, total: tell(what, k * total + done, of * total)


def select_findings(run: RunToCompare, calls: Sequence[Call] | None) -> Report:
    """An audit with the findings of the given checks only; Refused if it has none of them."""
    assert run.report is not None
    names = {c.method.name for c in calls} if calls is not None else {f.name for f in run.report.findings}
    findings = tuple(f for f in run.report.findings if f.name in names)
    if not findings:
        raise Refused(
            f"{run.name} has none of the checks {', '.join(sorted(names))}: audit it again with --only and their names"
        )
    return replace(run.report, findings=findings)
