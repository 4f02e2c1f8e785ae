"""Which column of a table names the pictures, which one their classes, and which one their splits."""

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
_SPLITS = ("subset", "partition", "set", "phase", "part")  # taken where all that they say is train, val or test
_NUMBERS = re.compile(r"(class|label|category|target|y)_?(index|idx|id|number|num|no)")
_INDEX = re.compile(r".*(index|idx)")
_COUNTS = re.compile(
    r"(|row|image|img|file|picture|photo|sample|frame|line|record|item|object|box)_?(index|idx)|unnamed.*"
)


@dataclass(frozen=True)
class Columns:
    """Columns as they are written; "" where there is none.  numbered: the classes are numbers of classes.

    notes: what should be known of the choice.
    """

    file: str
    label: str
    split: str
    numbered: bool
    notes: tuple[str, ...]

    def words(self) -> str:
        """Which column is what, for a note."""
        numbers = ", which holds class numbers" if self.numbered else ""
        label = f", classes from column {self.label}{numbers}" if self.label else ", no classes"
        return f"files from column {self.file}{label}" + (f", splits from column {self.split}" if self.split else "")


def file_columns(columns: Sequence[str], written: str) -> list[str]:
    """The columns that may name the pictures, the best first.  Refused where there is none."""
    by_name = [c for name in _FILES for c in columns if spelt(c) == name]
    ending = [c for c in columns if spelt(c).endswith(("_file_name", "_file_names"))]
    if by_name or len(ending) == 1:
        return by_name or ending
    if ending:
        raise Refused(f"{written}: call the one of {' and '.join(ending)} that names the pictures file_name")
    raise Refused(f"{written}: one must be called file and name the pictures")


def label_column(
    columns: Sequence[str], rows: Rows, asked: str | None, written: str, need: bool
) -> tuple[str, tuple[str, ...]]:
    """The column that holds the classes, and notes; "" where none does and none is needed.

    asked: what the user said.  Refused: where it is not there, and where several columns could be the one.
    """
    if asked is not None:
        if asked in columns:
            return asked, ()
        alike = [c for c in columns if spelt(c) == spelt(asked)]
        if len(alike) == 1:
            return alike[0], ()
        raise Refused(f"{written}, and no {asked}: {nearest(asked, columns)}")
    named = [c for c in columns if spelt(c) in _CLASSES or _NUMBERS.fullmatch(spelt(c))]
    others = [c for c in columns if c not in named and _INDEX.fullmatch(spelt(c)) and not _COUNTS.fullmatch(spelt(c))]
    could = named + [c for c in others if not counts_rows(row[c] for row in rows)]
    label = [c for c in could if spelt(c) == "label"]
    chosen = label if len(label) == 1 else could
    if len(chosen) == 1:
        return chosen[0], _counter(chosen[0], rows)
    if could:
        raise Refused(f"{written}, of which {' and '.join(could)} may hold the classes: say which, --label-column NAME")
    if need:
        raise Refused(f"{written}: say which holds the classes, --label-column NAME")
    return "", ()


def split_column(columns: Sequence[str], rows: Rows, written: str) -> str:
    """The column of splits: the one called split, else one of a like name in which there is nothing but splits."""
    named = [c for c in columns if spelt(c) == "split"]
    if not named:
        values = {c: {row[c].lower() for row in rows if row[c]} for c in columns if spelt(c) in _SPLITS}
        named = [c for c, said in values.items() if said and said <= KNOWN]
    if len(named) > 1:
        raise Refused(f"{written}, of which {' and '.join(named)} say the split: leave one of them out")
    return named[0] if named else ""


def are_numbers(column: str, words: Iterable[str], table: str) -> bool:
    """Whether the words of a column are class numbers: it is called so, and they are whole numbers from 0.

    Refused: numbers among words, numbers below 0 or with a decimal point, and one number written in two ways.
    """
    if not (_INDEX.fullmatch(spelt(column)) or _NUMBERS.fullmatch(spelt(column))):
        return False
    words = sorted(set(words))
    odd = [word for word in words if not _whole(word)]
    if odd and not any(map(is_number, words)):
        return False
    if odd:
        raise Refused(
            f"{table}: column {column} holds class numbers and also {', '.join(map(repr, odd[:5]))}: class numbers are "
            "whole, from 0, such as 7; leave the cell empty where there is none"
        )
    values: dict[str, str] = {}
    for word in words:
        other = values.setdefault(word.lstrip("0") or "0", word)
        if other != word:
            raise Refused(
                f"{table}: column {column} writes one class number as {other} and as {word}: write it in one way"
            )
    return True


def counts_rows(values: Iterable[str]) -> bool:
    """Whether the values of a column are 0, 1, 2, ... or 1, 2, 3, ... in any order, each once; of one row never.

    >>> counts_rows(["0", "2", "1"]), counts_rows(["1", "1"])
    (True, False)
    """
    found = list(values)
    if len(found) < 2 or not all(map(_whole, found)) or max(map(len, found)) > 12:
        return False
    numbers = sorted(map(int, found))
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def spelt(column: str) -> str:
    """How the name of a column is compared: "File Name" and "file-name" are file_name."""
    return plain(column).replace(" ", "_")


def _whole(word: str) -> bool:
    return word.isascii() and word.isdecimal()


def _counter(column: str, rows: Rows) -> tuple[str, ...]:
    if not counts_rows(row[column] for row in rows):
        return ()
    return (
        f"column {column} holds a different number for each of the {len(rows)} rows, as a counter does: if it is one, "
        "name the column of the classes, --label-column NAME",
    )
