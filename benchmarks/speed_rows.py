"""Rows of tables that set this build beside something else, turn by turn."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sections


@dataclass(frozen=True)
class Spent:
    """Seconds of one turn, the peak memory of its process in MB, and of an audit the seconds of each check."""

    seconds: float
    mb: float = 0.0
    checks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of a table: turns of this build, and of what stands beside it."""

    name: str
    now: list[Spent]
    beside: list[Spent]
    note: str = ""

    def line(self) -> str:
        ratios = sorted(a.seconds / b.seconds for a, b in zip(self.now, self.beside, strict=True))
        mid = [statistics.median(s.seconds for s in side) for side in (self.beside, self.now)]
        peaks = [max(s.mb for s in side) for side in (self.beside, self.now)]
        shown = [f"{m:.3g}" for m in mid]
        memory = [f"{m:.0f}" if m else "" for m in peaks]
        ratio = f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        cells = (self.name, *shown, ratio, str(len(ratios)), *memory, self.note)
        return f"| {' | '.join(cells)} |"


def middle(values: list[float], digits: int = 3) -> str:
    """The median, with the lowest and the highest."""
    low, mid, high = (f"{v:.{digits}g}" if v < 1000 else f"{v:,.0f}" for v in spread(values))
    return f"{mid} ({low} to {high})"


def spread(values: list[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def peak() -> float:
    """MB that this process had at most.

    Of Linux VmHWM: its ru_maxrss begins with that of the process which started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """The tree of an earlier build, in folder, until the end."""
    sections.git("worktree", "add", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        sections.git("worktree", "remove", "--force", str(folder))
