"""One run of several: its share of the progress, and of an audit the findings that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clearsight.comparing.sources import RunToCompare
from clearsight.core.catalogue import Call
from clearsight.core.progress import Progress
from clearsight.errors import Refused
from clearsight.reporting.report import Report


def progress_of_run(tell: Progress, k: int, of: int) -> Progress:
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
