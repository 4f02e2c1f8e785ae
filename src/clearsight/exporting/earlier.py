"""What an earlier export left in a folder: it goes when another is written, so that no sheet is of another file."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

FILE = "export.json"  # the note by which an export knows that a folder is one of an earlier export
_REPORT = ("report.html", "report.json")


def earlier_files(folder: Path) -> set[str]:
    """The files of an earlier export that its note names, and its report, by their names below the folder.

    Empty where there is no such note.  A name that leads out of the folder is never among them.
    """
    try:
        named = json.loads((folder / FILE).read_text(encoding="utf-8"))["files"]
        model = named[0]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()
    inside = {below for name in (model, *named[1:]) if (below := _below(folder, str(name))) is not None}
    return inside | {*_REPORT}


def _below(folder: Path, name: str) -> str | None:
    """The name of a file from the folder on, wherever the folder lay when it was noted; None where it lies outside."""
    parts = Path(name).parts
    for start in range(len(parts)):
        below = Path(*parts[start:])
        if not below.is_absolute() and ".." not in below.parts and (folder / below).is_file():
            return below.as_posix()
    return None


def clear_away(folder: Path, names: set[str]) -> None:
    """Remove these files below a folder, and the folders in it that are empty then."""
    for name in sorted(names):
        file = folder / name
        file.unlink(missing_ok=True)
        for parent in file.parents:
            if parent == folder:
                break
            with suppress(OSError):  # it holds something else
                parent.rmdir()
