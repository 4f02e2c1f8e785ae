"""Texts of a table: which column holds what, and what its cells say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight.data.columns import are_numbers, label_column, normalise, split_column
from clearsight.data.text_marks import PIECES, RANGES, find_pieces, read_ranges
from clearsight.data.text_records import Mark, Text, Texts
from clearsight.data.text_rows import Row, read_text_rows
from clearsight.data.walk import named
from clearsight.errors import Refused, nearest

TEXTS = (
    "text", "texts", "request", "sentence", "document", "content", "message", "review", "comment", "utterance",
    "payload", "query", "string", "body",
)  # fmt: skip


@dataclass(frozen=True)
class _Columns:
    """The names of the columns as the table spells them; "" where there is none."""

    text: tuple[str, ...]
    label: str
    split: str
    marks: str

    def words(self) -> str:
        texts = f"texts from column{'s' if len(self.text) > 1 else ''} {', '.join(self.text)}"
        label = f", classes from column {self.label}" if self.label else ", no classes"
        split = f", splits from column {self.split}" if self.split else ""
        return texts + label + split + (f", marks from column {self.marks}" if self.marks else "")


def read_text_table(table: Path, text: str | None = None, label: str | None = None, marks: str | None = None) -> Texts:
    """Read the texts of a table, of every split.

    text, label, marks: the columns that the user names; several columns of text, with commas between them, are joined
    by line breaks.  Refused: columns that are not there, or that cannot be told, and marks outside of their text.
    """
    names, rows, broken = read_text_rows(table)
    columns = _choose(table, names, rows, text, label, marks)
    texts, lost, unmarked = [], 0, list[str]()
    labels = [_labels(cells.get(columns.label)) for _, cells in rows]
    numbered = bool(columns.label) and are_numbers(
        columns.label, (word for words in labels for word in words), str(table)
    )
    for (name, cells), words in zip(rows, labels, strict=True):
        parts = [cells.get(column) for column in columns.text]
        if bad := next((p for p in parts if p is not None and not isinstance(p, str)), None):
            raise Refused(f"{table}: {name}: {str(bad)[:40]} is no text: name another column, --text-column NAME")
        whole = "\n".join(filter(None, parts))
        found, missing = _marks(table, name, columns.marks, cells, whole)
        lost += len(missing)
        unmarked += [name] if missing and found is None else []
        others = {c: _cell(v) for c, v in cells.items() if c not in (*columns.text, columns.label, columns.marks)}
        split = _cell(cells.get(columns.split)).strip() if columns.split else ""
        texts.append(Text(name, whole, words, found, others, split))
    notes = [f"{table.name}: {columns.words()}"]
    if lost:
        notes.append(f"{lost} marked pieces are not in their text, so these are not marked: {named(unmarked)}")
    return Texts(table, tuple(texts), tuple(broken), tuple(notes), numbered=numbered, column=columns.label)


def _choose(
    table: Path, names: Sequence[str], rows: Sequence[Row], text: str | None, label: str | None, marks: str | None
) -> _Columns:
    written = f"{table} has the columns {', '.join(names) or 'none'}"
    chosen = tuple(_named(word.strip(), names, written) for word in text.split(",")) if text else ()
    if not chosen:
        likely = [n for word in TEXTS for n in names if normalise(n) == word]
        if not likely:
            raise Refused(f"{written}: none is known to hold the texts; choose with --text-column NAME (or NAME,NAME)")
        chosen = (likely[0],)
    mark = _named(marks, names, written) if marks else ""
    if not mark:
        likely = [n for n in names if normalise(n) in (*RANGES, *PIECES) and n not in chosen]
        if len(likely) > 1:
            raise Refused(f"{written}: {' and '.join(likely)} may hold the marks; choose with --marks-column NAME")
        mark = likely[0] if likely else ""
    others = [n for n in names if n not in (*chosen, mark)]
    cells: list[Mapping[str, str]] = [{n: _cell(row.get(n)) for n in names} for _, row in rows]
    classes, _ = label_column(others, cells, label, written, need=False)
    split = split_column([n for n in others if n != classes], cells, written)
    return _Columns(chosen, classes, split, mark)


def _named(word: str, names: Sequence[str], written: str) -> str:
    alike = [n for n in names if n == word] or [n for n in names if normalise(n) == normalise(word)]
    if len(alike) != 1:
        raise Refused(f"{written}, and no {word}: {nearest(word, names)}")
    return alike[0]


def _labels(cell: Any) -> tuple[str, ...]:
    """The classes of a cell: one|other, a list, a number; () where it is empty."""
    if isinstance(cell, list):
        return tuple(dict.fromkeys(w for v in cell for w in [_cell(v).strip()] if w))
    return tuple(dict.fromkeys(word.strip() for word in _cell(cell).split("|") if word.strip()))


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _marks(
    table: Path, name: str, column: str, cells: Mapping[str, Any], text: str
) -> tuple[tuple[Mark, ...] | None, list[str]]:
    """The marked ranges of a row, and the marked pieces that its text does not have."""
    value = cells.get(column) if column else None
    try:
        if normalise(column) in RANGES or _holds_ranges(value):
            return read_ranges(value, len(text)), []
        return find_pieces(value, text)
    except Refused as e:
        raise Refused(f"{table}: {name}: {e}") from None


def _holds_ranges(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and not any(isinstance(v, str) for v in value)
