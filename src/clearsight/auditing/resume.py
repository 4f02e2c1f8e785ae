"""Going on with an audit that was stopped before its end."""

from __future__ import annotations

from pathlib import Path

from clearsight.auditing.case import Case
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.segmenter_case import SegmenterCase
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report


def read_stopped_audit(folder: Path, case: Case | DetectorCase | SegmenterCase) -> tuple[dict[str, Finding], float]:
    """The findings that a stopped audit of the same case left in this folder; none where there was none.

    The findings by their check's spelling, without errors, and the seconds that they took.  What they say of explainers
    stands in them; an explainer-ranking of a report from before these fields is left out, so that it runs again.
    Refused: a finished audit, and one of another case.
    """
    if not (folder / "report.json").exists():
        return {}, 0.0
    report = Report.read(folder)
    if report.facts.complete:
        raise Refused(f"{folder} holds a finished audit: name a new folder with -o")
    matches = {
        "model": report.facts.model.fingerprint == case.model.fingerprint(),
        "data": report.facts.data.digest == case.digest,
        "seed": report.facts.seed == case.seed,
        "budget": report.facts.budget == case.budget,
        "method": report.facts.asked == case.requested_method,
    }
    if not all(matches.values()) or report.facts.case != case.key:
        differing = ", ".join(k for k, v in matches.items() if not v) or "set of options, or by another version"
        raise Refused(f"{folder} holds a stopped audit of another {differing}: name a new folder with -o")
    usable = [f for f in report.findings if f.verdict != "error" and not _lacks_maps_unreliable(f)]
    return {f.check: f for f in usable}, report.facts.seconds


def _lacks_maps_unreliable(finding: Finding) -> bool:
    """Whether a finding of explainer-ranking comes from a version that did not record maps_unreliable."""
    return finding.name == "explainer-ranking" and finding.maps_unreliable is None
