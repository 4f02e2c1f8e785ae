"""The terminal sheet: the opening, then for each check its numbers and the command that shows the evidence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from clearsight.core.text import counted
from clearsight.reporting.findings import Cell, Finding
from clearsight.reporting.report import Report
from clearsight.reporting.wording import WORDS, show, show_interval

_STYLE = {"pass": "green", "warn": "yellow", "fail": "bold red", "note": "dim", "error": "bold red"}
_UNBROKEN = "\u00a0%"
_ROWS = 16  # of a table shown here
_BROKEN_FILES = 10  # broken files named here; the report names them all


def print_sheet(report: Report, console: Console, folder: Path) -> None:
    """Print the sheet of a report that was saved in a folder; the last line is the path of its report.html.

    Nothing depends on colour or on the width: prose is wrapped, commands and paths stand whole on lines of their own.
    """
    for sentence in report.opening:
        _print_wrapped(console, sentence, style="bold")
    if not report.facts.complete:
        _print_wrapped(console, "The audit was stopped early: not every check was run.")
    console.print()
    width = max([19, *(len(_printable(f.check)) for f in report.findings)]) if console.width > 70 else 19
    _print_line(console, f"{'':9}  {'check':{width}}  {'value':>8}  {'95 % interval':>17}  {'n':>6}".rstrip(), "dim")
    for f in report.sheet:
        _print_finding(console, f, width, opening=report.opening)
    if report.kind in ("attack", "theft"):
        _print_first_table(console, report.findings[0])
    _print_broken_files(console, report)
    _print_gate(console, report)
    console.print()
    _print_line(console, str(folder / "report.html"))


def _print_finding(console: Console, f: Finding, width: int, opening: Sequence[str]) -> None:
    row = Text(f"{WORDS[f.verdict]:9}", _STYLE[f.verdict])
    n = str(f.n) if f.n else "–"
    numbers = f"{show(f.value, f.unit):>8}  {show_interval(f):>17}  {n:>6}" if f.verdict != "error" else ""
    row.append(f"  {_printable(f.check):{width}}  {numbers}".rstrip(), "default not bold not dim")
    console.print(row, soft_wrap=True, highlight=False)
    if f.headline not in opening:
        _print_wrapped(console, f.headline, indent=11)
    if f.command:
        _print_line(console, f"{'':11}$ {_printable(f.command)}", "dim")
    if f.mend:
        _print_line(console, f"{'':11}to mend it:")
        _print_line(console, f"{'':11}$ {_printable(f.mend)}")


def _print_first_table(console: Console, f: Finding) -> None:
    """The first table of a finding: of an attack its curve, or its matrix."""
    if not f.tables:
        return
    table = f.tables[0]
    names = list(dict.fromkeys(name for row in table.rows for name in row))
    cells = [[_printable(_cell_text(row.get(name))) for name in names] for row in table.rows[:_ROWS]]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    console.print()
    _print_line(console, table.caption, "dim")
    for row in [names, *cells]:
        first, others = row[0].ljust(widths[0]), [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        _print_line(console, "  " + "  ".join([first, *others]))
    if len(table.rows) > _ROWS:
        _print_wrapped(console, f"and {len(table.rows) - _ROWS} more, all of them in the report", indent=2)


def _cell_text(value: Cell) -> str:
    return show(value, "") if value is None or isinstance(value, float) else str(value)


def _print_broken_files(console: Console, report: Report) -> None:
    broken = report.facts.data.broken
    if broken:
        console.print()
        _print_wrapped(console, f"{len(broken)} of {report.facts.data.pictures} files are left out:")
        _print_list(console, (f"{b.file}: {b.reason}" for b in broken[:_BROKEN_FILES]))
        if len(broken) > _BROKEN_FILES:
            _print_wrapped(
                console, f"and {len(broken) - _BROKEN_FILES} more, all of them named in the report", indent=2
            )


def _print_gate(console: Console, report: Report) -> None:
    bars = report.facts.gate
    if bars:
        console.print()
        missed = sum(not b.held for b in bars)
        _print_wrapped(console, _gate_line(missed, len(bars)))
        words = ("missed", "held")
        _print_list(console, (f"{words[b.held]}: {b.check} {b.bar}, it is {b.value}" for b in bars))


def _gate_line(missed: int, bars: int) -> str:
    if missed:
        return f"Gate: {missed} of {counted(bars, 'bar')} missed."
    return "Gate: the bar held." if bars == 1 else f"Gate: all {bars} bars held."


def _print_list(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        _print_wrapped(console, line, indent=2)


def _print_wrapped(console: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    """Print text wrapped at the console's width, never inside a word."""
    width = max(console.width - 1, 40)
    margin = " " * indent
    lines = textwrap.wrap(
        _printable(text.replace(" %", _UNBROKEN)),
        width,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        _print_line(console, line.replace(_UNBROKEN, " %"), style)


def _print_line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True, highlight=False)


def _printable(text: str) -> str:
    """The text without control characters: a file name must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\u00a0" else "�" for c in text)
