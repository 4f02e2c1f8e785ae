"""What lies in a folder and below it."""

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
class Walked:
    """All below a folder, by names with slashes: pictures, what could not be read and why, folders, and the rest.

    tables: metadata.csv and its kin, which say what pictures are.  again: links to folders that were read already.
    """

    pictures: dict[str, Path] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    again: int = 0

    def notes(self, used: Sequence[str] = ()) -> list[str]:
        """What is skipped, in sentences.  used: names of other files that are not."""
        others = [name for name in self.others if name not in used]
        kinds = Counter(Path(name).suffix.lower() or Path(name).name for name in others)
        said = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(5))
        hidden = f"{files(len(self.hidden), 'hidden')} or folders skipped ({named(sorted(self.hidden))})"
        return [
            *([f"{files(len(others), 'other')} skipped ({said})"] if others else []),
            *([hidden] if self.hidden else []),
            *([f"{self.again} links to folders that were read already skipped"] if self.again else []),
        ]


def walk(root: Path) -> Walked:
    """All that has a picture's suffix, and the rest.  No folder is read twice."""
    found = Walked()
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        here = waiting.pop()
        try:
            about, entries = here.stat(), sorted(os.scandir(here), key=lambda e: e.name)
        except OSError as e:
            found.broken.append((name_of(here, root), f"a folder that cannot be read: {e.strerror}"))
            continue
        if (about.st_dev, about.st_ino) in seen:
            found.again += 1
            continue
        seen.add((about.st_dev, about.st_ino))
        if here != root:
            found.folders.append(name_of(here, root))
        linked: list[Path] = []
        for entry in entries:
            path, name = Path(entry.path), name_of(Path(entry.path), root)
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                found.hidden.append(name)
            elif path.suffix.lower() in SUFFIXES:
                found.pictures[name] = path
            elif os.path.isdir(path):
                (linked if entry.is_symlink() else waiting).append(path)
            elif entry.name.lower() in TABLES:
                found.tables.append(path)
            else:
                found.others.append(name)
        waiting[:0] = linked  # real folders first, so that a link never takes their place
    found.tables.sort()
    return found


def name_of(path: Path, root: Path) -> str:
    """Below the root, with slashes; bytes of a file's name that are no UTF-8 written as \\x.."""
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
