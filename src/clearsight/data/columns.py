"""Find the columns of a table that hold the files, the classes and the splits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clearsight.core.label_names import is_number, plain
from clearsight.data.split_words import KNOWN
from clearsight.errors import Refused, nearest

Rows = Sequence[Mapping[str, str]]

_FILES = (
    "file", "filename", "file_name", "file_names", "filepath", "file_path", "path", "image", "image_path",
    "image_file", "image_name", "img", "img_path", "img_name",
)  # fmt: skip
_CLASSES = (
    "label", "labels", "class", "classes", "class_name", "classname", "class_label", "classlabel", "label_name",
    "labelname", "category", "category_name", "categoryname", "target", "target_name", "y",
)  # fmt: skip
_SPLITS = ("subset", "partition", "set", "phase", "part")  # used where they hold only train, val and test
MOST_WORDS = 12  # different words in a column, above which it is no grouping
_NUMBERS = re.compile(r"(class|label|category|target|y)_?(index|idx|id|number|num|no)")
_INDEX = re.compile(r".*(index|idx)")
_COUNTS = re.compile(
    r"(|row|image|img|file|picture|photo|sample|frame|line|record|item|object|box)_?(index|idx)|unnamed.*"
)


@dataclass(frozen=True)
class Columns:
    """The names of the columns as the table spells them; "" where there is none.

    numbered: the label column holds class numbers.  notes: remarks on how the columns were chosen.
    """

    file: str
    label: str
    split: str
    numbered: bool
    notes: tuple[str, ...]

    def words(self) -> str:
        """A note that names the columns."""
        numbers = ", which holds class numbers" if self.numbered else ""
        label = f", classes from column {self.label}{numbers}" if self.label else ", no classes"
        return f"files from column {self.file}{label}" + (f", splits from column {self.split}" if self.split else "")


def file_columns(columns: Sequence[str], written: str) -> list[str]:
    """The columns that may name the pictures, the best first.  Refused: a table without one."""
    by_name = [c for name in _FILES for c in columns if normalise(c) == name]
    ending = [c for c in columns if normalise(c).endswith(("_file_name", "_file_names"))]
    if by_name or len(ending) == 1:
        return by_name or ending
    if ending:
        raise Refused(f"{written}: {' and '.join(ending)} may name the pictures; rename the right one to file_name")
    raise Refused(f"{written}: none names the pictures; rename the one that does to file")


def label_column(
    columns: Sequence[str], rows: Rows, requested: str | None, written: str, need: bool
) -> tuple[str, tuple[str, ...]]:
    """The column that holds the classes, and notes; "" where none does and none is needed.

    requested: the column that the user names.  Refused: a name that is not a column, and several candidates.
    """
    if requested is not None:
        if requested in columns:
            return requested, ()
        alike = [c for c in columns if normalise(c) == normalise(requested)]
        if len(alike) == 1:
            return alike[0], ()
        raise Refused(f"{written}, and no {requested}: {nearest(requested, columns)}")
    by_name = [c for c in columns if normalise(c) in _CLASSES or _NUMBERS.fullmatch(normalise(c))]
    others = [
        c
        for c in columns
        if c not in by_name and _INDEX.fullmatch(normalise(c)) and not _COUNTS.fullmatch(normalise(c))
    ]
    candidates = by_name + [c for c in others if not counts_rows(row[c] for row in rows)]
    label = [c for c in candidates if normalise(c) == "label"]
    chosen = label if len(label) == 1 else candidates
    if len(chosen) == 1:
        return chosen[0], _counter_note(chosen[0], rows)
    if candidates:
        raise Refused(f"{written}: {' and '.join(candidates)} may hold the classes; choose with --label-column NAME")
    if need:
        raise Refused(f"{written}: none is known to hold the classes; choose with --label-column NAME")
    return "", ()


def split_column(columns: Sequence[str], rows: Rows, written: str) -> str:
    """The column of splits: the one called split, else one such as "subset" that holds only train, val and test."""
    named = [c for c in columns if normalise(c) == "split"]
    if not named:
        values = {c: {row[c].lower() for row in rows if row[c]} for c in columns if normalise(c) in _SPLITS}
        named = [c for c, words in values.items() if words and words <= KNOWN]
    if len(named) > 1:
        raise Refused(f"{written}: {' and '.join(named)} hold the split; remove one of them")
    return named[0] if named else ""


def grouping_columns(rows: Rows) -> list[str]:
    """The columns that put pictures into groups, by name: those of 2 to 12 different words, empty cells aside.

    >>> grouping_columns([{"sex": "f", "id": "1"}, {"sex": "m", "id": "1"}])
    ['sex']
    """
    names = sorted({name for row in rows for name in row})
    words_by_column = {name: {row.get(name, "") for row in rows} - {""} for name in names}
    return [name for name, words_of_column in words_by_column.items() if 2 <= len(words_of_column) <= MOST_WORDS]


def are_numbers(column: str, words: Iterable[str], table: str) -> bool:
    """Whether a column holds class numbers: its name says so, and its words are whole numbers from 0.

    Refused: numbers among words, numbers below 0 or with a decimal point, and one number written in two ways.
    """
    if not (_INDEX.fullmatch(normalise(column)) or _NUMBERS.fullmatch(normalise(column))):
        return False
    words = sorted(set(words))
    invalid = [word for word in words if not is_digits(word)]
    if invalid and not any(map(is_number, words)):
        return False
    if invalid:
        raise Refused(
            f"{table}: column {column} holds class numbers and also {', '.join(map(repr, invalid[:5]))}: a class "
            "number is a whole number from 0; leave the cell empty where a picture has no class"
        )
    values: dict[str, str] = {}
    for word in words:
        other = values.setdefault(word.lstrip("0") or "0", word)
        if other != word:
            raise Refused(
                f"{table}: column {column} writes one class number as {other} and as {word}: use one spelling"
            )
    return True


def counts_rows(values: Iterable[str]) -> bool:
    """Whether the values of a column are 0, 1, 2, ... or 1, 2, 3, ... in any order, each once; of one row never.

    >>> counts_rows(["0", "2", "1"]), counts_rows(["1", "1"])
    (True, False)
    """
    words = list(values)
    if len(words) < 2 or not all(map(is_digits, words)) or max(map(len, words)) > 12:
        return False
    numbers = sorted(map(int, words))
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def normalise(column: str) -> str:
    """How the name of a column is compared: "File Name" and "file-name" are file_name."""
    return plain(column).replace(" ", "_")


def is_digits(word: str) -> bool:
    return word.isascii() and word.isdecimal()


def _counter_note(column: str, rows: Rows) -> tuple[str, ...]:
    if not counts_rows(row[column] for row in rows):
        return ()
    return (
        f"column {column} holds a different number in each of the {len(rows)} rows: if it counts the rows, name the "
        "column of the classes with --label-column NAME",
    )
