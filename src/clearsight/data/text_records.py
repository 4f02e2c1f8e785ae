"""A set of texts with their labels and marks, and notes on how it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

Mark = tuple[int, int]  # the characters from the first number up to, but not including, the second


@dataclass(frozen=True)
class Text:
    """One text, whole, with what is known of it.

    name: the file below the root, or the place in the table ("row 5").  labels: the acceptable classes in the words of
    the data, none where it is unlabelled.  marks: ranges of characters, such as the place of an attack, in order and
    apart from each other; () means none, None that the text is not marked.  columns: the other cells of its row.
    split: "test", "train", ... as written, "" where there are no splits.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()
    marks: tuple[Mark, ...] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: str = ""


@dataclass(frozen=True)
class Texts:
    """A set of texts in the order of their table, or by name, with notes on how it was read.

    root: the table or folder they came from.  broken: (name, reason) of those that cannot be used.  notes: sentences on
    what was chosen, found or left out.  classes: the model's labels for the data's words, where the user gives them.
    numbered, column: whether the labels are class numbers, and of which column.
    """

    root: Path | str
    texts: tuple[Text, ...]
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbered: bool = False
    column: str = ""
