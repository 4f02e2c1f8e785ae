"""Tables that say of what class pictures are: CSV, JSON lines, Parquet."""

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
class Listed:
    """What a table lists: pictures that need not be there, and rows that name none."""

    columns: Columns
    pictures: tuple[Picture, ...]
    broken: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def in_table(table: Path, asked: str | None) -> Pictures:
    """The pictures of a table (file, label, ...), which has to say their classes."""
    found = listed(table, asked)
    return Pictures(
        table,
        found.pictures,
        found.broken,
        found.notes,
        numbered=found.columns.numbered,
        column=found.columns.label,
    )


def listed(table: Path, asked: str | None, *, need: bool = True, classes: bool = True) -> Listed:
    """file, label, ...: acceptable classes with | between them; files relative to the table, or to images/ beside it.

    asked: the column of the classes, where the user said it.  need: refuse a table that has none.  classes: look for
    them at all.
    """
    names, numbered_rows = read_rows(table)
    rows = [row for _, row in numbered_rows]
    written = f"{table} has the columns {', '.join(names) or 'none'}"
    file = _file_column(table, file_columns(names, written), rows)
    label, notes = "", tuple[str, ...]()
    if classes:
        label, notes = label_column([n for n in names if n != file], rows, asked, written, need)
    split = split_column([n for n in names if n not in (file, label)], rows, written)
    words = [_words(row[label]) if label else () for row in rows]
    numbered = bool(label) and are_numbers(label, (w for each in words for w in each), str(table))
    columns = Columns(file, label, split, numbered, notes)
    pictures, broken = [], []
    first: dict[str, int] = {}
    for (number, row), labels in zip(numbered_rows, words, strict=True):
        if not row[file]:
            broken.append((f"row {number}", "names no file"))
            continue
        name = _place(table.parent, row[file])
        key = posixpath.normpath(name)
        if key in first:
            raise Refused(
                f"{table}: {clean(name)} is in rows {first[key]} and {number}: write its classes as one|other"
            )
        first[key] = number
        others = {column: clean(value) for column, value in row.items() if column not in (file, label)}
        said = row[split].strip() if split else ""
        pictures.append(Picture(table.parent / name, clean(name), labels, None, others, said))
    return Listed(columns, tuple(pictures), tuple(broken), (f"{table.name}: {columns.words()}", *columns.notes))


def _words(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(clean(word.strip()) for word in cell.split("|") if word.strip()))


def _place(folder: Path, cell: str) -> str:
    """Where a cell says that a picture lies, below the folder of its table: the first way in which it is there."""
    slashed = PurePosixPath(cell.replace("\\", "/")).as_posix()
    for name in (slashed, f"images/{slashed}", cell):
        if os.path.lexists(folder / name):
            return name
    return slashed


def _file_column(table: Path, could: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    """Of several columns that may name the pictures the one whose pictures are there."""
    if len(could) == 1:
        return could[0]
    places = {c: [_place(table.parent, row[c]) if row[c] else "" for row in rows] for c in could}
    there = {c: sum(bool(n) and os.path.lexists(table.parent / n) for n in names) for c, names in places.items()}
    best = [c for c in could if there[c] == max(there.values())]
    if there[best[0]] and any(places[c] != places[best[0]] for c in best):
        raise Refused(f"{table}: the columns {' and '.join(best)} name different pictures: leave one of them out")
    return best[0]
