"""Tables that list pictures and their classes: CSV, JSON lines, Parquet."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clearsight.data.columns import Columns, are_numbers, file_columns, label_column, split_column
from clearsight.data.records import Picture, Pictures
from clearsight.data.rows import clean, read_rows
from clearsight.errors import Refused


@dataclass(frozen=True)
class TableContent:
    """What a table lists: pictures, whose files may be missing, and rows that name no file."""

    columns: Columns
    pictures: tuple[Picture, ...]
    broken: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def read_picture_table(table: Path, requested: str | None) -> Pictures:
    """Read the pictures of a table (file, label, ...).  Refused: a table without a column of classes."""
    content = list_pictures(table, requested)
    return Pictures(
        table,
        content.pictures,
        content.broken,
        content.notes,
        numbered=content.columns.numbered,
        column=content.columns.label,
    )


def list_pictures(table: Path, requested: str | None, *, need: bool = True, classes: bool = True) -> TableContent:
    """Read file, label, ...: a label may hold several classes with | between them.

    Files are relative to the table, or to images/ beside it.  requested: the column of the classes that the user names.
    need: refuse a table without classes.  classes: look for a column of classes.
    """
    names, numbered_rows = read_rows(table)
    rows = [row for _, row in numbered_rows]
    written = f"{table} has the columns {', '.join(names) or 'none'}"
    file = _choose_file_column(table, file_columns(names, written), rows)
    label, notes = "", tuple[str, ...]()
    if classes:
        label, notes = label_column([n for n in names if n != file], rows, requested, written, need)
    split = split_column([n for n in names if n not in (file, label)], rows, written)
    words = [_split_classes(row[label]) if label else () for row in rows]
    numbered = bool(label) and are_numbers(label, (w for labels in words for w in labels), str(table))
    columns = Columns(file, label, split, numbered, notes)
    pictures, broken = [], []
    first: dict[str, int] = {}
    for (number, row), labels in zip(numbered_rows, words, strict=True):
        if not row[file]:
            broken.append((f"row {number}", "names no file"))
            continue
        name = _locate(table.parent, row[file])
        key = posixpath.normpath(name)
        if key in first:
            raise Refused(
                f"{table}: {clean(name)} is in rows {first[key]} and {number}: list it once, with its classes as "
                "one|other"
            )
        first[key] = number
        others = {column: clean(value) for column, value in row.items() if column not in (file, label)}
        split_name = row[split].strip() if split else ""
        pictures.append(Picture(table.parent / name, clean(name), labels, None, others, split_name))
    return TableContent(columns, tuple(pictures), tuple(broken), (f"{table.name}: {columns.words()}", *columns.notes))


def _split_classes(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(clean(word.strip()) for word in cell.split("|") if word.strip()))


def _locate(folder: Path, cell: str) -> str:
    """The path of a picture below the folder of its table: the first reading of the cell that exists."""
    slashed = PurePosixPath(cell.replace("\\", "/")).as_posix()
    for name in (slashed, f"images/{slashed}", cell):
        if os.path.lexists(folder / name):
            return name
    return slashed


def _choose_file_column(table: Path, candidates: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    """Of several columns that may name the pictures, the one whose files exist."""
    if len(candidates) == 1:
        return candidates[0]
    places = {c: [_locate(table.parent, row[c]) if row[c] else "" for row in rows] for c in candidates}
    existing = {c: sum(bool(n) and os.path.lexists(table.parent / n) for n in names) for c, names in places.items()}
    best = [c for c in candidates if existing[c] == max(existing.values())]
    if existing[best[0]] and any(places[c] != places[best[0]] for c in best):
        raise Refused(f"{table}: the columns {' and '.join(best)} name different pictures: remove one of them")
    return best[0]
