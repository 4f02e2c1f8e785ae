"""Bars that an audit must clear, for continuous integration: a TOML or JSON file, one section for each check."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight.core.catalogue import Call, catalogue
from clearsight.core.check_kinds import why_not
from clearsight.errors import Refused, nearest
from clearsight.reporting.facts import BarResult
from clearsight.reporting.findings import Finding
from clearsight.reporting.wording import show

_RANK = {"pass": 0, "note": 1, "warn": 2, "fail": 3, "error": 4}
_KEYS = ("at_least", "at_most", "not_worse_than", "interval")


@dataclass(frozen=True)
class Bar:
    """What one check must reach.

    at_least, at_most: bounds on the value; with interval=True the whole 95 % interval must keep them.
    not_worse_than: "pass" or "warn", a bound on the verdict.
    """

    check: str
    at_least: float | None = None
    at_most: float | None = None
    not_worse_than: str | None = None
    interval: bool = False

    def hold(self, finding: Finding) -> list[BarResult]:
        """Each bound, in words, with what it was held against and whether it was kept."""
        low = high = finding.value
        if self.interval:
            low, high = finding.interval or (None, None)
        of_interval = " (its interval)" if self.interval else ""
        results = []
        if self.at_least is not None:
            held = low is not None and low >= self.at_least
            bar = f"at least {show(self.at_least, finding.unit)}{of_interval}"
            results.append(BarResult(self.check, bar, show(low, finding.unit), held))
        if self.at_most is not None:
            held = high is not None and high <= self.at_most
            bar = f"at most {show(self.at_most, finding.unit)}{of_interval}"
            results.append(BarResult(self.check, bar, show(high, finding.unit), held))
        if self.not_worse_than is not None:
            held = _RANK[finding.verdict] <= _RANK[self.not_worse_than]
            results.append(BarResult(self.check, f"not worse than {self.not_worse_than}", finding.verdict, held))
        return results


def bars_for(gate: str | Path | None, calls: Sequence[Call], kind: str = "classifier") -> tuple[Bar, ...]:
    """The bars in a file, none without one.

    Refused: a bar for a check that cannot judge this kind of model, or is not among the calls.
    """
    bars = read_gate(gate) if gate else ()
    for bar in bars:
        if why := why_not(catalogue("checks")[bar.check], kind):
            raise Refused(f"the gate has a bar for {bar.check}, which cannot be asked: {why}")
    missing = [b.check for b in bars if b.check not in {c.method.name for c in calls}]
    if missing:
        raise Refused(f"the gate has a bar for {', '.join(missing)}, which --only leaves out: add it there")
    return bars


def read_gate(path: str | Path) -> tuple[Bar, ...]:
    """The bars in a file such as::

    [accuracy]
    at_least = 0.8
    interval = true

    [robustness]
    not_worse_than = "warn"
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        sections = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as e:
        raise Refused(f"the gate {path} cannot be read: {e}") from None
    if not sections:
        raise Refused(f"the gate {path} is empty: write a section for a check, such as [accuracy] with at_least = 0.8")
    return tuple(_read_bar(name, section, path) for name, section in sections.items())


def _read_bar(name: str, section: Any, path: str | Path) -> Bar:
    if name not in catalogue("checks"):
        raise Refused(f"the gate {path} names no check with {name!r}: {nearest(name, catalogue('checks'))}")
    if not isinstance(section, dict) or not set(section) & set(_KEYS[:3]):
        raise Refused(f"the gate's section [{name}] sets no bar: give at_least, at_most or not_worse_than")
    for key, value in section.items():
        if key not in _KEYS:
            raise Refused(f"the gate's section [{name}] has {key!r}: {nearest(key, _KEYS)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        valid = {"not_worse_than": value in ("pass", "warn"), "interval": isinstance(value, bool)}.get(key, is_number)
        if not valid:
            kinds = {"not_worse_than": '"pass" or "warn"', "interval": "true or false"}
            raise Refused(f"the gate's [{name}] {key} = {value!r}: it is {kinds.get(key, 'a number')}")
    return Bar(name, **section)


def hold(bars: Sequence[Bar], findings: Sequence[Finding]) -> list[BarResult]:
    """Every bar against its finding; a check that was not run keeps no bar."""
    results: list[BarResult] = []
    for bar in bars:
        judged = [f for f in findings if f.name == bar.check]
        if not judged:
            results.append(BarResult(bar.check, "was to be run", "not run", held=False))
        for f in judged:
            results.extend(bar.hold(f))
    return results
