"""Commands beside those of an earlier build, by turns, each in a process of its own; seconds of a clock."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import sections
from speed_rows import Row, Spent, checked_out

COFFEE = ("explain", "demo", "demo:coffee")
COMMANDS: tuple[tuple[str, tuple[str, ...], int], ...] = (  # what it is, the words, turns
    ("the list of methods", ("methods",), 7),
    ("a mistyped folder", ("explain", "demo", "nowhere/x.jpg"), 7),
    ("a mistyped method", (*COFFEE, "-m", "grad-cm"), 7),
    ("one map of one picture", (*COFFEE, "-m", "grad-cam", "--no-tests"), 5),
    ("one relevance map", (*COFFEE, "-m", "lrp", "--no-tests"), 5),
    (
        "three tested maps of two pictures",
        (*COFFEE, "demo:chelsea", "-m", "grad-cam", "-m", "lrp", "-m", "occlusion(window=48, stride=24)"),
        3,
    ),
    ("the first picture judged", ("audit", "demo", "demo:coffee", "--only", "accuracy"), 5),
    ("the whole audit", ("audit",), 2),
)


def measured(before: str, only: str, turns: int | None) -> str:
    """The table; importing torch is measured as a yardstick."""
    commit = sections.git("rev-parse", "--short", before)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, checked_out(before, Path(folder) / "before") as old:
        torch = [spent([sys.executable, "-c", "import torch"], old, Path(folder)).seconds for _ in range(5)]
        for name, typed, usual in COMMANDS:
            if only in f"{name} {' '.join(typed)}":
                rows += by_turns(name, typed, turns or usual, old, Path(folder))
    heads = f"| command | {commit}, s: | this build, s: | ratio (range): | turns: | {commit}, MB: | MB: | words |"
    table = sections.table(heads, [row.line() for row in rows])
    return f"{table}\n\n`import torch` took {statistics.median(torch):.2f} s."


def by_turns(name: str, typed: Sequence[str], turns: int, old: Path, folder: Path) -> list[Row]:
    """The command's row, and of an audit those of its checks."""
    command = [sys.executable, "-m", "clearsight", *typed]
    for tree in (old, sections.ROOT):  # so that both have their bytecode, and the disk is warm
        spent(command, tree, folder) if turns > 2 else None
    pairs = [[spent(command, tree, folder) for tree in (old, sections.ROOT)] for _ in range(turns)]
    whole = Row(name, [p[1] for p in pairs], [p[0] for p in pairs], f"`{' '.join(typed)}`")
    print(whole.line(), file=sys.stderr, flush=True)
    return [whole, *by_check(whole)]


def by_check(whole: Row) -> list[Row]:
    """The same of the checks of an audit that take a second or more, the slowest first."""
    long = sorted((s, check) for check, s in whole.beside[0].checks.items() if s >= 1)[::-1]
    if len(long) < 2:
        return []
    return [
        Row(
            f"of it {check}",
            [Spent(s.checks[check]) for s in whole.now],
            [Spent(s.checks[check]) for s in whole.beside],
        )
        for _, check in long
    ]


def spent(command: Sequence[str], tree: Path, folder: Path) -> Spent:
    """One run of a command with the package of a tree, in a new folder.

    The peak is that of the process, or that of this one where that is higher: it holds no torch.
    """
    places = [str(tree / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        report = Path(place) / "clearsight-runs" / "audit-1" / "report.json"
        findings = json.loads(report.read_text("utf-8"))["findings"] if report.is_file() else []
        return Spent(seconds, usage.ru_maxrss / 1024, {f["check"]: f["seconds"] for f in findings})
