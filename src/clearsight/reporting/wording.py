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
    return f"{number(value, unit)} %" if unit == "share" else number(value, unit)


def number(value: float, unit: str) -> str:
    """The digits alone: a share as a percentage without its sign.  What is rounded to 0 has no minus.

    >>> number(0.125, "share"), number(-0.125, ""), number(-0.0001, "share")
    ('12.5', '−0.125', '0.0')
    """
    text = f"{100 * value:.1f}" if unit == "share" else f"{value:.3g}"
    if text == "-0.0":
        return "0.0"
    return text.replace("-", "−", 1) if value < 0 else text


def signed_points(gap: float) -> str:
    """A difference of shares in percentage points, with its sign and without their name.

    >>> signed_points(0.0551), signed_points(-0.01), signed_points(-0.0001)
    ('+5.5', '−1.0', '0.0')
    """
    text = number(gap, "share")
    if text == "0.0":
        return "0.0"
    return text if text.startswith("−") else f"+{text}"


def p_value(p: float) -> str:
    """The p of a test as it stands behind the letter.

    >>> p_value(0.01294), p_value(1e-9)
    ('= 0.013', 'below 0.0001')
    """
    return "below 0.0001" if p < 0.0001 else f"= {p:.2g}"


def show_range(low: float, high: float, unit: str) -> str:
    """From the lower number to the higher one.

    >>> show_range(0.49, 0.943, "share")
    '49.0 to 94.3 %'
    """
    return f"{number(low, unit) if math.isfinite(low) else '–'} to {show(high, unit)}"


def show_interval(finding: Finding) -> str:
    """The 95 % interval of a finding's value, or a dash."""
    if finding.interval is None:
        return "–"
    return show_range(*finding.interval, finding.unit)


WORDS = {"pass": "holds", "warn": "undecided", "fail": "fails", "note": "note", "error": "not done"}
