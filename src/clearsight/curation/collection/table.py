"""ATTRIBUTION.csv: the author, licence and origin of each collected picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from clearsight.core.output import write_whole
from clearsight.core.tables import read_table
from clearsight.errors import Refused

NAME = "ATTRIBUTION.csv"
COLUMNS = (
    "file", "title", "creator", "creator_url", "licence", "licence_url", "source", "page", "url", "query", "sha256",
    "date",
)  # fmt: skip


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of the table in a folder; none where there is no table.  Columns of the user's own are kept."""
    path = folder / NAME
    if not path.exists():
        return []
    columns, rows = read_table(path)
    if missing := [column for column in COLUMNS if column not in columns]:
        raise Refused(
            f"{path} lacks the columns {', '.join(missing)}: add them, or give another folder, folder=DIR (-o DIR)"
        )
    return rows


def write_rows(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write the table, whole or not at all."""
    columns = list(dict.fromkeys((*COLUMNS, *(column for row in rows for column in row))))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / NAME, text.getvalue())
