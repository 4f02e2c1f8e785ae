"""Rows of a table of pictures, as text: CSV, JSON lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from clearsight.core.tables import read_table
from clearsight.errors import Refused

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_UNLABELLED = -1  # what Hugging Face datasets write for a class that is not known


def read_rows(table: Path) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """Read the columns and the numbered rows; the first row has number 2 in a CSV and 1 in other tables.

    A missing value is "", and several values in a cell have | between them.  A list of files gives a row for each.
    Refused: a file that is not such a table, and Parquet where pyarrow is not installed.
    """
    kind = table.suffix.lower()
    if kind not in (".jsonl", ".parquet"):
        columns, rows = read_table(table)
        return columns, list(enumerate(rows, 2))
    records = list(enumerate(_read_parquet(table) if kind == ".parquet" else _read_json_lines(table), 1))
    columns = tuple(dict.fromkeys(clean(str(column)) for _, record in records for column in record))
    numbered_rows: list[tuple[int, dict[str, str]]] = []
    for number, record in records:
        values = {clean(str(column)): value for column, value in record.items()}
        if len(values) < len(record):
            raise Refused(f"{table}: row {number} has two columns of the same name")
        numbered_rows += [
            (number, {column: _cell_text(row.get(column)) for column in columns}) for row in _row_per_file(values)
        ]
    return columns, numbered_rows


def clean(text: str) -> str:
    """Replace what UTF-8 cannot hold by escapes.

    >>> clean("a\\ud800")
    'a\\\\ud800'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _read_json_lines(table: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise Refused(f"cannot read {table}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise Refused(f"{table} is not JSON in UTF-8: {e}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=unique)
        except Refused as e:
            raise Refused(f"{table}: line {number}: {e}") from None
        except (ValueError, RecursionError) as e:
            raise Refused(f"{table}: line {number} is not JSON: {e}") from None
        if not isinstance(record, dict):
            raise Refused(f'{table}: line {number} is not an object such as {{"file_name": "a.png", "label": "cat"}}')
        yield record


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a JSON object that gives a key twice: json.loads(text, object_pairs_hook=unique)."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(word for word, _ in pairs if [w for w, _ in pairs].count(word) > 1)
        raise Refused(f"{twice!r} is given twice")
    return record


def _read_parquet(table: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file; class numbers become names where Hugging Face datasets wrote them into the file."""
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise Refused(
            f"{table} is Parquet, and pyarrow is not installed: run pip install 'clearsight[parquet]', or write the "
            "table as CSV"
        ) from None
    try:
        with table.open("rb") as file:
            arrow_table = parquet.read_table(file)
            records: list[dict[str, Any]] = arrow_table.to_pylist()
    except Exception as e:  # a damaged file makes Arrow raise several kinds of errors
        reason = str(getattr(e, "strerror", None) or e).partition("\n")[0]
        raise Refused(f"cannot read {table} as Parquet: {reason}") from None
    inside = [field.name for field in arrow_table.schema if "bytes: binary" in str(field.type)]
    if inside:
        raise Refused(
            f"{table} holds the pictures themselves in column {inside[0]}: save them as files and name these in a "
            "column file_name"
        )
    for column, names in _class_names((arrow_table.schema.metadata or {}).get(b"huggingface", b"{}")).items():
        for record in records:
            record[column] = _class_name(table, column, record.get(column), names)
    return records


def _class_names(metadata: bytes) -> dict[str, list[str]]:
    """Column -> names of its class numbers, from what Hugging Face datasets write into a Parquet file."""
    try:
        features = json.loads(metadata)["info"]["features"]
        kinds = {column: kind for column, kind in features.items() if isinstance(kind, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        column: [str(name) for name in kind["names"]]
        for column, kind in kinds.items()
        if kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list)
    }


def _class_name(table: Path, column: str, value: Any, names: list[str]) -> Any:
    if value is None or value == _UNLABELLED:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise Refused(f"{table}: {column} {value!r} is not a number from 0 to {len(names) - 1}, one of its classes")
    return names[value]


def _row_per_file(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each of several files."""
    lists = [
        c for c, value in record.items() if c.lower().endswith(("file_name", "file_names")) and _is_filled_list(value)
    ]
    if not lists:
        yield record
        return
    for file in record[lists[0]]:
        yield {**record, lists[0]: file}


def _is_filled_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


def _cell_text(value: Any) -> str:
    """A cell as text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(v, str | int) for v in value):
        return "|".join(map(_cell_text, value))
    if isinstance(value, bool | list | dict):
        return clean(json.dumps(value, ensure_ascii=False, default=str))
    return str(value)
