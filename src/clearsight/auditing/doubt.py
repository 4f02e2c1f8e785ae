"""Whether the maps of an audit are evidence, by what the check explainer-ranking found."""

from __future__ import annotations

from clearsight.auditing.case import Case
from clearsight.reporting.findings import Finding


def doubt(case: Case, found: Finding) -> str:
    """Why the maps of later checks are no evidence, by what explainer-ranking found: "" where they may be.

    An explainer that was asked for and was not among those judged is not doubted.
    """
    judged = {row["explainer"] for t in found.tables[:1] for row in t.rows}
    meant = case.asked == "auto" or str(case.method) in judged
    return (
        "no explainer can be believed on this model (check explainer-ranking)"
        if found.verdict == "fail" and meant
        else ""
    )
