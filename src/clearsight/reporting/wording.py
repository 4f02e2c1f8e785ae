"""How numbers and verdicts are written."""

from __future__ import annotations

import math

from clearsight.reporting.findings import Finding


def show(value: float | None, unit: str) -> str:
    """A number as people read it.

    >>> show(0.125, "share"), show(-0.125, "")
    ('12.5 %', '−0.125')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g}"
    return text.replace("-", "−", 1) if value < 0 else text


def show_interval(finding: Finding) -> str:
    """The 95 % interval of a finding's value, or a dash."""
    if finding.interval is None:
        return "–"
    low, high = (show(v, finding.unit).removesuffix(" %") for v in finding.interval)
    return f"{low} to {high}{' %' if finding.unit == 'share' else ''}"


WORDS = {"pass": "holds", "warn": "undecided", "fail": "fails", "note": "note", "error": "not done"}
