"""List the pictures, tables and other files in a folder and below it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clearsight.data.images import SUFFIXES

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NAMED = 5  # names that a note gives


@dataclass
class FolderContent:
    """The content of a folder, by names with slashes: pictures, broken entries with the reason, folders, other files.

    tables: metadata.csv, .jsonl and .parquet.  revisited: number of links to folders that were already read.
    """

    pictures: dict[str, Path] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    revisited: int = 0

    def notes(self, used: Sequence[str] = ()) -> list[str]:
        """Notes on skipped files.  used: names of other files that were read."""
        others = [name for name in self.others if name not in used]
        kinds = Counter(Path(name).suffix.lower() or Path(name).name for name in others)
        counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5))
        hidden = f"{files(len(self.hidden), 'hidden')} or folders skipped ({named(sorted(self.hidden))})"
        return [
            *([f"{files(len(others), 'other')} skipped ({counts})"] if others else []),
            *([hidden] if self.hidden else []),
            *([f"{self.revisited} links skipped: their folders were already read"] if self.revisited else []),
        ]


def walk(root: Path) -> FolderContent:
    """List a folder and all folders below it.  No folder is read twice."""
    folder = FolderContent()
    visited: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        current = waiting.pop()
        try:
            status, entries = current.stat(), sorted(os.scandir(current), key=lambda e: e.name)
        except OSError as e:
            folder.broken.append((name_of(current, root), f"the folder cannot be read: {e.strerror}"))
            continue
        if (status.st_dev, status.st_ino) in visited:
            folder.revisited += 1
            continue
        visited.add((status.st_dev, status.st_ino))
        if current != root:
            folder.folders.append(name_of(current, root))
        linked: list[Path] = []
        for entry in entries:
            path, name = Path(entry.path), name_of(Path(entry.path), root)
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                folder.hidden.append(name)
            elif path.suffix.lower() in SUFFIXES:
                folder.pictures[name] = path
            elif os.path.isdir(path):
                (linked if entry.is_symlink() else waiting).append(path)
            elif entry.name.lower() in TABLES:
                folder.tables.append(path)
            else:
                folder.others.append(name)
        waiting[:0] = linked  # real folders first, so that a link never takes their place
    folder.tables.sort()
    return folder


def name_of(path: Path, root: Path) -> str:
    """The path below the root, with slashes; bytes of a file's name that are not UTF-8 are written as \\x.."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def files(n: int, kind: str) -> str:
    return f"{n} {kind} {'file' if n == 1 else 'files'}"


def named(names: Sequence[str]) -> str:
    """A few names, and how many more.

    >>> named(["a", "b"]), named(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
