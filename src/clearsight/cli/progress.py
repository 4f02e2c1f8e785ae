"""Progress with an estimate of the time left, on standard error; plain lines if that is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from clearsight.core.progress import Progress as Report
from clearsight.core.text import counted


@contextmanager
def progress(quiet: bool, thing: str = "picture") -> Iterator[Report]:
    """A function to call with (what, done, total).  Quiet: it does nothing.  thing: what is counted, in a word.

    Inside, what a network prints goes to standard error, so that standard output is the result alone.
    """
    with redirect_stdout(sys.stderr):
        yield from _choose_reporter(quiet, thing)


def _choose_reporter(quiet: bool, thing: str) -> Iterator[Report]:
    if quiet:
        yield lambda what, done, total: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_reporter(thing)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield report


def _line_reporter(thing: str) -> Report:
    """One line when something begins, or begins again, and, for long work, one every ten seconds with an estimate."""
    began_at: dict[str, float] = {}
    last_line_at: dict[str, float] = {}
    last_done: dict[str, int] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in began_at or (done < last_done[what] and now - last_line_at[what] > 10):
            began_at[what] = last_line_at[what] = now
            print(f"{what}: {counted(total, thing)}", file=sys.stderr, flush=True)
        elif now - last_line_at[what] > 10 and done < total:
            last_line_at[what] = now
            seconds_left = (now - began_at[what]) / max(done, 1) * (total - done)
            print(f"{what}: {done} of {total}, about {seconds_left:.0f} s left", file=sys.stderr, flush=True)
        last_done[what] = done

    return report
