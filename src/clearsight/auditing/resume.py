"""Going on with an audit that was stopped before its end."""

from __future__ import annotations

from pathlib import Path

from clearsight.auditing.case import Case
from clearsight.auditing.doubt import doubt
from clearsight.core.catalogue import parse
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report


def earlier(folder: Path, case: Case) -> tuple[dict[str, Finding], float]:
    """What an audit of the same case, stopped before its end, left in this folder: nothing where there was none.

    The findings by their check's spelling, without errors, and the seconds that they took.  The case learns what that
    audit had learned of its explainers.  Refused: a finished audit, and one of another case.
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
    if case.asked == "auto" and old.facts.method:
        case.use(parse(old.facts.method, "explainers"))  # what that audit chose
    case.doubted = next((doubt(case, f) for f in old.findings if f.name == "explainer-ranking"), "")
    return {f.check: f for f in old.findings if f.verdict != "error"}, old.facts.seconds
