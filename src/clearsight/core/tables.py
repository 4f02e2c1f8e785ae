"""Reading the user's CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

from clearsight.errors import Refused

TEXT_TABLES = (".csv", ".tsv", ".jsonl")  # tables with a text in each row


def read_table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The columns and the rows of a CSV in UTF-8 with a header, separated by comma, semicolon or tab."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = separator(header)
            rows = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if "".join(row).strip()]
    except OSError as e:
        raise Refused(f"cannot read {path}: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise Refused(f"{path} is not a CSV in UTF-8: {e}; save it as UTF-8 (in Excel: CSV UTF-8)") from None
    except csv.Error as e:
        raise Refused(f"{path} is not a CSV: {e}") from None
    columns = tuple(cell.strip() for cell in rows[0]) if rows else ()
    if len(set(columns)) != len(columns):
        raise Refused(f"{path} has two columns of the same name, among {', '.join(columns)}: rename one")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns):
            raise Refused(f"{path}: row {number} has {len(row)} cells, but there are {len(columns)} columns")
    return columns, [dict(zip(columns, (cell.strip() for cell in row), strict=True)) for row in rows[1:]]


def separator(header: str) -> str:
    """What stands most often between the names of columns, outside quotes.

    >>> separator('file;label;"size, in cm"'), separator("file,label"), separator("file")
    (';', ',', ',')
    """
    outside = "".join(header.split('"')[::2])
    return max(",;\t", key=outside.count)


def one_row(words: str | Path) -> tuple[Path, int] | None:
    """The table and the number of the row that words such as requests.csv:12 name; None where they name none.

    >>> one_row("requests.csv:12") is None  # there is no such table
    True
    """
    table, number = _table_and_row(str(words))
    is_row = number != "" and table.lower().endswith(TEXT_TABLES)
    try:
        return (Path(table), int(number)) if is_row and not Path(words).exists() and Path(table).is_file() else None
    except (OSError, ValueError):  # a text that only looks like one, too long for a name
        return None


def names_table(words: str) -> bool:
    """Can words only name a table of texts, or a row of one, whether or not there is one?

    >>> names_table("requests.csv"), names_table("requests.csv:12"), names_table("GET /requests.csv")
    (True, True, False)
    """
    table, _ = _table_and_row(words)
    return table.lower().endswith(TEXT_TABLES) and not any(letter.isspace() for letter in table)


def _table_and_row(words: str) -> tuple[str, str]:
    """requests.csv:12 as requests.csv and 12; all other words as they are, and ""."""
    table, _, number = words.rpartition(":")
    return (table, number) if number.isascii() and number.isdigit() else (words, "")
