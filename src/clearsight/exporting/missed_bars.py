"""What the parity sheet beside an exported file says against the file."""

from __future__ import annotations

import json
from pathlib import Path

from clearsight.exporting.earlier import FILE, earlier_files


def missed_bars(path: Path) -> str:
    """The sheet's verdict, where the export that wrote a file missed a bar; else "".

    Args:
        path: the file; the note and the sheet of its export lie in the same folder.
    """
    if path.name not in earlier_files(path.parent):
        return ""
    try:
        if json.loads((path.parent / FILE).read_text(encoding="utf-8"))["status"] != 1:
            return ""
        return str(json.loads((path.parent / "report.json").read_text(encoding="utf-8"))["verdict"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
