"""What a command prints: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from clearsight.cli.options import RunOptions

if TYPE_CHECKING:
    from clearsight.reporting.report import Report


def printable(line: str) -> str:
    """Escape the characters of a line that a terminal might act on."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def sayer(silent: bool) -> Callable[[str], None]:
    """A function that prints a sentence on standard error, unless silent."""

    def say(line: str) -> None:
        if not silent:
            print(printable(line), file=sys.stderr, flush=True)

    return say


def tell(result: dict[str, Any], lines: Sequence[str], run: RunOptions) -> None:
    """Print a result: as JSON with ``--json``, else its lines, of which ``--quiet`` leaves the last."""
    if run.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
        return
    for line in lines[-1:] if run.quiet else lines:
        print(printable(line))


def end(report: Report, folder: Path, run: RunOptions) -> NoReturn:
    """Show a report that was saved in a folder, and end with its status."""
    if run.json:
        print(report.json(), end="")
    elif run.quiet:
        print(folder / "report.html")
    else:
        show_sheet(report, folder)
    raise typer.Exit(report.status)


def show_sheet(report: Report, folder: Path) -> None:
    """Draw the sheet of a report that was saved in a folder."""
    from rich.console import Console

    from clearsight.reporting.terminal import print_sheet

    print_sheet(report, Console(), folder)


def typed_command() -> str:
    """The command as it was given, to be shown in the report."""
    return shlex.join(["clearsight", *sys.argv[1:]])


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
