"""Rows of a table of texts, cells as they are: CSV and JSON lines.  A row that is not UTF-8 is named, not guessed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clearsight.core.tables import separator
from clearsight.data.rows import unique
from clearsight.errors import Refused

Row = tuple[str, dict[str, Any]]  # its name, "row 5", and its cells: text in a CSV, any JSON in JSON lines


def read_text_rows(table: Path) -> tuple[tuple[str, ...], list[Row], list[tuple[str, str]]]:
    """The columns, the rows with their names, and (name, reason) of rows whose bytes are no UTF-8.

    Names count as people do in a table: the header of a CSV is row 1, a line of JSON is its line.
    Refused: a file that cannot be read, and one that is no such table.
    """
    try:
        content = table.read_bytes()
    except OSError as e:
        raise Refused(f"cannot read {table}: {e.strerror}") from None
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refused(f"{table} is UTF-16, not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8)")
    rows = [*(_json_lines(table, content) if table.suffix.lower() == ".jsonl" else _csv_rows(table, content))]
    columns = tuple(dict.fromkeys(column for _, cells in rows for column in cells)) or first_columns(table)
    broken = [(name, "not UTF-8") for name, cells in rows if not _is_text(cells)]
    named = {name for name, _ in broken}
    return columns, [row for row in rows if row[0] not in named], broken


def _csv_rows(table: Path, content: bytes) -> Iterator[Row]:
    text = content.decode("utf-8", "surrogateescape")
    kept = csv.field_size_limit(2**31 - 1)  # a long text is named as such, not as a broken table
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator(text.partition("\n")[0]), strict=True)
        header = [cell.strip() for cell in next(rows, [])]
        if len(set(header)) != len(header):
            raise Refused(f"{table} has two columns of the same name, among {', '.join(header)}: rename one")
        for number, cells in enumerate(rows, 2):
            if not cells:
                continue
            if len(cells) != len(header):
                raise Refused(f"{table}: row {number} has {len(cells)} cells, but there are {len(header)} columns")
            yield f"row {number}", dict(zip(header, cells, strict=True))
    except csv.Error as e:
        raise Refused(f"{table} is not a CSV: {e}") from None
    finally:
        csv.field_size_limit(kept)


def _json_lines(table: Path, content: bytes) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=unique)
        except Refused as e:
            raise Refused(f"{table}: line {number}: {e}") from None
        except (ValueError, RecursionError) as e:
            raise Refused(f"{table}: line {number} is not JSON: {e}") from None
        if not isinstance(record, dict):
            raise Refused(f'{table}: line {number} is not an object such as {{"text": "GET /", "label": "normal"}}')
        yield f"line {number}", record


def _is_text(cells: dict[str, Any]) -> bool:
    """Whether all cells can be written as UTF-8: bytes that are none were read as halves of characters."""
    try:
        json.dumps(cells, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def first_columns(table: Path) -> tuple[str, ...]:
    """The columns of the header, or of the first line of JSON, as far as they can be read."""
    try:
        with table.open("rb") as file:
            line = file.readline(2**20).decode("utf-8-sig")
        if table.suffix.lower() == ".jsonl":
            record = json.loads(line)
            return tuple(record) if isinstance(record, dict) else ()
        return tuple(cell.strip() for cell in next(csv.reader([line], delimiter=separator(line)), []))
    except (OSError, ValueError, RecursionError, csv.Error):
        return ()
