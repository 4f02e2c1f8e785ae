"""The first lines of a report and the order of its sheet, made from the findings alone."""

from __future__ import annotations

from collections.abc import Sequence

from clearsight.core.catalogue import catalogue
from clearsight.core.check_kinds import checks_of
from clearsight.core.text import counted
from clearsight.reporting.findings import Finding, Verdict
from clearsight.reporting.wording import show_interval

_ADVICE = "look at its evidence"
_FIRST = ("accuracy", "detection-accuracy", "segmentation-accuracy")
_ORDER: tuple[Verdict, ...] = ("fail", "error", "warn", "pass", "note")
_SINGLE = {
    "fail": "fails",
    "error": "could not be done",
    "warn": "is undecided",
    "pass": "holds",
    "note": "had nothing to judge",
}


def opening(findings: Sequence[Finding], thing: str = "picture", kind: str = "classifier") -> tuple[str, str]:
    """Two sentences on an audit: which checks fail, and what to do first.

    thing: what the data are, in a word; kind: of the model.  Where all checks hold, the second sentence names the
    checks not asked and those without anything to judge.

    >>> opening([Finding("fail", "...", check="robustness", advice="train on attacked pictures")])
    ('The one check that was asked fails: robustness.', 'Start with robustness: train on attacked pictures.')
    """
    ordered = sheet_order(findings)
    return _what_fails(ordered), _what_first(ordered, thing, kind)


def sheet_order(findings: Sequence[Finding]) -> list[Finding]:
    """Accuracy, then what fails or could not be done, what is undecided, what holds, and notes.

    Inside each the order of the catalogue.  A check from a user's own file comes after those of the catalogue.
    """
    places = {name: k for k, name in enumerate(catalogue("checks"))}

    def place(f: Finding) -> tuple[bool, int, int]:
        return f.name not in _FIRST, _ORDER.index(f.verdict), places.get(f.name, len(places))

    return sorted(findings, key=place)


def _what_fails(ordered: Sequence[Finding]) -> str:
    """How many checks fail and which; then how many could not be done or are undecided."""
    n = len(ordered)
    if not n:
        return "No check was asked."
    if n == 1:
        return f"The one check that was asked {_SINGLE[ordered[0].verdict]}: {ordered[0].check}."
    failed, errors, undecided = (_with_verdict(ordered, v) for v in ("fail", "error", "warn"))
    if not (failed or errors or undecided):
        return _all_hold(ordered)
    parts = [f"{len(failed)} of {n} checks {'fails' if len(failed) == 1 else 'fail'}: {_list_checks(failed)}"]
    if not failed:
        parts = [f"None of {n} checks fails"]
    if errors:
        parts.append(f"{len(errors)} could not be done: {_list_checks(errors)}")
    if undecided:
        names = "" if failed else f": {_list_checks(undecided)}"
        parts.append(f"{len(undecided)} {'is' if len(undecided) == 1 else 'are'} undecided{names}")
    return f"{'; '.join(parts)}."


def _all_hold(ordered: Sequence[Finding]) -> str:
    passed = _with_verdict(ordered, "pass")
    if len(passed) == len(ordered):
        return f"All {len(passed)} checks hold."
    if not passed:
        return f"None of {len(ordered)} checks had anything to judge."
    return f"{counted(len(passed), 'check holds', 'checks hold')}, and none fails."


def _what_first(ordered: Sequence[Finding], thing: str, kind: str) -> str:
    """What to do about the first check of the sheet that fails; else that could not be done; else that is undecided."""
    for verdict in ("fail", "error", "warn"):
        for f in _with_verdict(ordered, verdict)[:1]:
            return _advice(f, thing)
    return _what_was_not_asked(ordered, kind)


def _advice(f: Finding, thing: str) -> str:
    if f.verdict == "error":
        return f"Start with {f.name}: {f.headline.rstrip('.')}."
    if f.verdict == "warn" and f.has_bar:
        interval = f" (95 % interval {show_interval(f)})" if f.interval else ""
        return f"Start with more {thing}s: {f.name} rests on {counted(f.n, thing)}{interval}."
    return f"Start with {f.name}: {f.advice or _ADVICE}."


def _what_was_not_asked(ordered: Sequence[Finding], kind: str) -> str:
    """Which checks of this kind of model were not asked, and which of those asked had nothing to judge."""
    names = {f.name for f in ordered}
    missing = [name for name in checks_of(kind) if name not in names]
    every = "Every check of the catalogue was asked"
    if kind != "classifier":
        every = f"Every check that judges a {kind} was asked"
    parts = [f"Not asked: {', '.join(missing)}"] if missing else [every]
    empty = _with_verdict(ordered, "note")
    if empty:
        parts.append(f"nothing to judge for {_list_checks(empty)}")
    return f"{'; '.join(parts)}."


def _with_verdict(ordered: Sequence[Finding], verdict: str) -> list[Finding]:
    return [f for f in ordered if f.verdict == verdict]


def _list_checks(findings: Sequence[Finding]) -> str:
    return ", ".join(f.check for f in findings)
