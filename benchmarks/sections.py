"""Sections of a page of figures, each between two marks, which a script writes anew while the prose beside them stays.

<!-- begin commands -->
the table, and beneath it which build was measured, and when
<!-- end commands -->
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def names(page: str) -> list[str]:
    """The sections of a page, in its order."""
    return re.findall(r"(?m)^<!-- begin (.+) -->$", page)


def replaced(page: str, name: str, body: str) -> str:
    """The page with the section's body in place of the one before."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page has no section between {begin.strip()} and {end}: write the two lines")
    return page[: page.index(begin) + len(begin)] + f"{body.strip()}\n" + page[page.index(end) :]


def write(file: Path, name: str, body: str) -> None:
    """Put a section into a page, which is read at this moment, so that what was written meanwhile stays."""
    file.write_text(replaced(file.read_text("utf-8"), name, body), encoding="utf-8")


def table(heads: str, rows: list[str]) -> str:
    """A table of lines that begin and end with a bar; columns with a colon behind their name hold numbers."""
    if not rows:
        sys.exit("no row holds the word: nothing is written")
    columns = [h.strip() for h in heads.split("|")[1:-1]]
    line = "|".join("---:" if c.endswith(":") else "---" for c in columns)
    return "\n".join([f"| {' | '.join(c.removesuffix(':') for c in columns)} |", f"|{line}|", *rows])


@dataclass(frozen=True)
class Start:
    """When a measurement began, with which build, and how many processes ran or waited then."""

    time: datetime
    commit: str
    load: float


def start() -> Start:
    changes = " with changes" if git("status", "--porcelain", "--", "src") else ""
    return Start(datetime.now(), git("rev-parse", "--short", "HEAD") + changes, os.getloadavg()[0])


def state(began: Start, *libraries: str) -> str:
    """Which build was measured, when, with what, and how busy the machine was.

    Args:
        began: what `start` said.
        libraries: names of other packages whose version counts.
    """
    others = "".join(f", {name} {installed(name)}" for name in libraries if installed(name))
    python = ".".join(map(str, sys.version_info[:3]))
    told = (
        f"Build {began.commit}, measured on {began.time:%d %B %Y}, {began.time:%H:%M} to {datetime.now():%H:%M}; torch "
        f"{installed('torch')}{others}, Python {python}; {os.cpu_count()} cores, OMP_NUM_THREADS "
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')}. Load of the machine: {began.load:.1f} at the beginning, "
        f"{os.getloadavg()[0]:.1f} at the end, this script's own included."
    )
    return textwrap.fill(told, 120)


def installed(name: str) -> str:
    """The version of a package, "" where it is not installed."""
    try:
        return version({"pytorch-grad-cam": "grad-cam"}.get(name, name))
    except PackageNotFoundError:
        return ""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
