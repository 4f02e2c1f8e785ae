"""Going on with an audit that was stopped before its end."""

from __future__ import annotations

from pathlib import Path

from clearsight.auditing.case import Case
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report


def earlier(folder: Path, case: Case) -> tuple[dict[str, Finding], float]:
    """What an audit of the same case, stopped before its end, left in this folder: nothing where there was none.

    The findings by their check's spelling, without errors, and the seconds that they took.  What they say of explainers
    stands in them; an explainer-ranking of a report from before these fields is left out, so that it runs again.
    Refused: a finished audit, and one of another case.
    """
    if not (folder / "report.json").exists():
        return {}, 0.0
    old = Report.read(folder)
    if old.facts.complete:
        raise Refused(f"{folder} holds a finished audit: name a new folder with -o")
    same = {
        "model": old.facts.model.fingerprint == case.model.fingerprint(),
        "data": old.facts.data.digest == case.digest,
        "seed": old.facts.seed == case.seed,
        "budget": old.facts.budget == case.budget,
        "method": old.facts.asked == case.wished,
    }
    if not all(same.values()) or old.facts.case != case.key:
        other = ", ".join(k for k, v in same.items() if not v) or "set of options, or by another version"
        raise Refused(f"{folder} holds a stopped audit of another {other}: name a new folder with -o")
    usable = [f for f in old.findings if f.verdict != "error" and not _is_of_before(f)]
    return {f.check: f for f in usable}, old.facts.seconds


def _is_of_before(finding: Finding) -> bool:
    """Whether a ranking of explainers does not say what it means for the checks after it."""
    return finding.name == "explainer-ranking" and finding.maps_unreliable is None
