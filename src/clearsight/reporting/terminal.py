"""The terminal sheet: the opening, then for each check its numbers and the command that shows the evidence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from clearsight.reporting.findings import Cell, Finding
from clearsight.reporting.report import Report
from clearsight.reporting.wording import WORDS, show, show_interval

_STYLE = {"pass": "green", "warn": "yellow", "fail": "bold red", "note": "dim", "error": "bold red"}
_UNBROKEN = "\u00a0%"
_ROWS = 16  # of a table shown here
_SHOWN = 10  # broken files named here; the report names them all


def print_sheet(report: Report, console: Console, folder: Path) -> None:
    """Print the sheet of a report that was saved in a folder; the last line is the path of its report.html.

    Nothing depends on colour or on the width: prose is wrapped, commands and paths stand whole on lines of their own.
    """
    for sentence in report.opening:
        _prose(console, sentence, style="bold")
    if not report.facts.complete:
        _prose(console, "The audit was stopped early: not every check was run.")
    console.print()
    wide = max([19, *(len(_clean(f.check)) for f in report.findings)]) if console.width > 70 else 19
    _line(console, f"{'':9}  {'check':{wide}}  {'value':>8}  {'95 % interval':>17}  {'n':>6}".rstrip(), "dim")
    for f in report.sheet:
        _finding(console, f, wide, said=report.opening)
    if report.kind == "attack":
        _table(console, report.findings[0])
    _broken(console, report)
    _gate(console, report)
    console.print()
    _line(console, str(folder / "report.html"))


def _finding(console: Console, f: Finding, wide: int, said: Sequence[str]) -> None:
    row = Text(f"{WORDS[f.verdict]:9}", _STYLE[f.verdict])
    n = str(f.n) if f.n else "–"
    numbers = f"{show(f.value, f.unit):>8}  {show_interval(f):>17}  {n:>6}" if f.verdict != "error" else ""
    row.append(f"  {_clean(f.check):{wide}}  {numbers}".rstrip(), "default not bold not dim")
    console.print(row, soft_wrap=True, highlight=False)
    if f.headline not in said:
        _prose(console, f.headline, indent=11)
    if f.command:
        _line(console, f"{'':11}$ {_clean(f.command)}", "dim")


def _table(console: Console, f: Finding) -> None:
    """The first table of a finding: of an attack its curve, or its matrix."""
    if not f.tables:
        return
    t = f.tables[0]
    names = list(dict.fromkeys(name for row in t.rows for name in row))
    cells = [[_clean(_cell(row.get(name))) for name in names] for row in t.rows[:_ROWS]]
    wide = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    console.print()
    _line(console, t.caption, "dim")
    for row in [names, *cells]:
        first, rest = row[0].ljust(wide[0]), [cell.rjust(w) for cell, w in zip(row[1:], wide[1:], strict=True)]
        _line(console, "  " + "  ".join([first, *rest]))
    if len(t.rows) > _ROWS:
        _prose(console, f"and {len(t.rows) - _ROWS} more, all of them in the report", indent=2)


def _cell(value: Cell) -> str:
    return show(value, "") if value is None or isinstance(value, float) else str(value)


def _broken(console: Console, report: Report) -> None:
    broken = report.facts.data.broken
    if broken:
        console.print()
        _prose(console, f"{len(broken)} of {report.facts.data.pictures} files are left out:")
        _list(console, (f"{b.file}: {b.reason}" for b in broken[:_SHOWN]))
        if len(broken) > _SHOWN:
            _prose(console, f"and {len(broken) - _SHOWN} more, all of them named in the report", indent=2)


def _gate(console: Console, report: Report) -> None:
    bars = report.facts.gate
    if bars:
        console.print()
        missed = sum(not b.held for b in bars)
        _prose(
            console, f"Gate: {missed} of {len(bars)} bars missed." if missed else f"Gate: all {len(bars)} bars held."
        )
        words = ("missed", "held")
        _list(console, (f"{words[b.held]}: {b.check} {b.bar}, it is {b.value}" for b in bars))


def _list(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        _prose(console, line, indent=2)


def _prose(console: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    """Wrapped at the console's width, never inside a word."""
    room = max(console.width - 1, 40)
    pad = " " * indent
    wrapped = textwrap.wrap(
        _clean(text.replace(" %", _UNBROKEN)),
        room,
        initial_indent=pad,
        subsequent_indent=pad,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in wrapped:
        _line(console, line.replace(_UNBROKEN, " %"), style)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True, highlight=False)


def _clean(text: str) -> str:
    """Without control characters: a file name must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\u00a0" else "�" for c in text)
