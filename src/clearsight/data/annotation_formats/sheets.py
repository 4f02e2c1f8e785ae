"""The result of every reader of a format, and helpers that parse numbers and names."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearsight.data.annotation_formats.regions import Polygon, Region, Size

EXPECTED = (
    "expected the .json of COCO, Label Studio or LabelMe, Pascal VOC .xml, YOLO .txt or .yaml, or masks .png (a file, "
    "or a folder with one for each picture), or a .csv with the columns file, box_x, box_y, box_w, box_h"
)


@dataclass(frozen=True)
class Sheet:
    """The annotation of one picture, before it is fitted to the picture.

    size: the picture's, where stated.  fractions: coordinates in [0, 1].  bad: what cannot be read, and why.
    names: a name for each region in messages ("annotation 5", "line 3").  remarks: what was read otherwise than it
    is written, or not used.
    """

    regions: tuple[Region, ...] = ()
    size: Size | None = None
    fractions: bool = False
    bad: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


Entry = tuple[tuple[str, ...], Callable[[], Sheet]]  # the picture's possible names, the best first; its sheet


@dataclass(frozen=True)
class AnnotationSet:
    """The annotations of one format: an entry for each picture that they name.

    form: the format's name.  nameless: why some classes have only a number.  notes: what else was assumed or left out.
    classes: the names of all classes in the order of their numbers, where the format lists them.  origins: the file of
    each entry, where a file holds those of several pictures.
    """

    form: str
    entries: list[Entry]
    nameless: str = ""
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    origins: tuple[Path, ...] = ()


def number(value: object) -> float | None:
    """A number, also one written as text, NaN and infinity included; None for anything else, True included.

    >>> number("12.5"), number(3), number(True), number("1_0"), number(None)
    (12.5, 3.0, None, None, None)
    """
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def whole(value: object) -> int | None:
    """A whole number, also one written as text or with .0; None for anything else.

    >>> whole(200.0), whole("200"), whole(200.5), whole("nan"), whole(True)
    (200, 200, None, None, None)
    """
    if type(value) is int and abs(value) < 2**53:
        return value
    parsed = number(value)
    return int(parsed) if parsed is not None and parsed.is_integer() else None


def numbers(values: object) -> tuple[float, ...] | None:
    """A list of numbers; None for anything else, and for a list with an item that is not a number.

    >>> numbers([1, "2.5"]), numbers("12"), numbers({1: 2}), numbers([1, None])
    ((1.0, 2.5), None, None, None)
    """
    if not isinstance(values, list | tuple):
        return None
    parsed = [number(value) for value in values]
    good = [value for value in parsed if value is not None]
    return tuple(good) if len(good) == len(parsed) else None


def identity(value: object) -> str | None:
    """An id as text, so that 7, 7.0 and "7" are the same; None for what is neither a number nor a text.

    >>> identity(7.0), identity("7"), identity("007"), identity(None)
    ('7', '7', '007', None)
    """
    if type(value) is int:
        return str(value)
    if isinstance(value, str):
        return value.strip()
    number_text = whole(value)
    if number_text is None and isinstance(value, float):
        return str(value)
    return None if number_text is None else str(number_text)


def size_of(wide: object, high: object) -> tuple[Size | None, tuple[str, ...]]:
    """The size of a picture that an annotation states, and a remark where no picture can have it.

    >>> size_of("200", 300.0), size_of(None, None)
    (((200, 300), ()), (None, ()))
    """
    if wide is None and high is None:
        return None, ()
    width, height = whole(wide), whole(high)
    if width is not None and height is not None and width > 0 and height > 0:
        return (width, height), ()
    return None, (f"its size is stated as {shown(wide)} x {shown(high)}, which is not a size and is ignored",)


def shown(value: object) -> str:
    """A value of the annotation as it stands in a message, cut short."""
    if type(value) is int and abs(value) < 10**18:
        return str(value)
    return clean(value if isinstance(value, str) and 0 < len(value) <= 80 else reprlib.repr(value))


def clean(text: str) -> str:
    """A text that can be written in UTF-8: JSON and YAML may hold halves of characters.

    >>> clean("caf\\udc80")
    'caf?'
    """
    return text.encode("utf-8", "replace").decode()


def points(flat: Sequence[float]) -> Polygon:
    """x, y, x, y, ... as corners."""
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def by(size: Sequence[int]) -> str:
    """A size as text: "60 x 40"."""
    return " x ".join(map(str, size))


def named(names: Sequence[str]) -> str:
    """The first names of many, and how many more."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and the folders in it, without hidden ones; links to folders are not followed."""
    files = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return sorted(file for file in files if not file.name.startswith("."))
