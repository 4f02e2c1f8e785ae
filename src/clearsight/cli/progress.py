"""What people see while they wait: progress with an estimate on standard error, plain lines where it is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from clearsight.core.progress import Progress as Report


@contextmanager
def progress(quiet: bool) -> Iterator[Report]:
    """A function to call with (what, done, total).  Quiet: it does nothing.

    Inside, what a network prints goes to standard error, so that standard output is the result alone.
    """
    with redirect_stdout(sys.stderr):
        yield from _telling(quiet)


def _telling(quiet: bool) -> Iterator[Report]:
    if quiet:
        yield lambda what, done, total: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def _lines() -> Report:
    """One line when something begins, or begins again, and, for long work, one every ten seconds with an estimate."""
    began: dict[str, float] = {}
    said: dict[str, float] = {}
    last: dict[str, int] = {}

    def tell(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in began or (done < last[what] and now - said[what] > 10):
            began[what] = said[what] = now
            print(f"{what}: {total} {'picture' if total == 1 else 'pictures'}", file=sys.stderr, flush=True)
        elif now - said[what] > 10 and done < total:
            said[what] = now
            left = (now - began[what]) / max(done, 1) * (total - done)
            print(f"{what}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)
        last[what] = done

    return tell
