"""Which class of a model a word means: by a name, by a number that is a name, or by the place of the class."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_NUMBER = re.compile(r"[+-]?[0-9]+([.][0-9]*)?", re.ASCII)
_DIGITS = re.compile(r"[0-9]+", re.ASCII)


def plain(label: str) -> str:
    """A label as it is compared: lower case, underscores and hyphens as spaces, single spaces.

    >>> plain("Reflex_camera")
    'reflex camera'
    """
    return " ".join(label.lower().replace("_", " ").replace("-", " ").split())


def first_name(label: str) -> str:
    """The first of a label's comma-separated names.

    >>> first_name("tench, Tinca tinca")
    'tench'
    """
    return label.partition(",")[0]


def names(labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Every way to write a label -> the classes it means; a whole label wins over a part of another."""
    whole: dict[str, tuple[int, ...]] = {}
    parts: dict[str, tuple[int, ...]] = {}
    for i, label in enumerate(labels):
        whole[plain(label)] = (*whole.get(plain(label), ()), i)
        for part in {plain(p) for p in label.split(",")}:
            parts[part] = (*parts.get(part, ()), i)
    return parts | whole


def finder(labels: Sequence[str]) -> Callable[[str], tuple[int, ...]]:
    """A word -> the classes that are labelled so: letter by letter, else as `plain` compares.

    A number is compared letter by letter alone: neither "01" nor "-1" is "1".

    >>> find = finder(["Tabby, cat", "1", "-1"])
    >>> find("CAT"), find("-1"), find("01")
    ((0,), (2,), ())
    """
    exact: dict[str, tuple[int, ...]] = {}
    numbers: dict[str, tuple[int, ...]] = {}
    for i, label in enumerate(labels):
        exact[label] = (*exact.get(label, ()), i)
        for part in {p.strip() for p in label.split(",")}:
            if is_number(part):
                numbers[part] = (*numbers.get(part, ()), i)
    by_name = names(labels)

    def find(word: str) -> tuple[int, ...]:
        text = word.strip()
        candidates = numbers if is_number(text) else by_name
        return exact.get(word) or exact.get(text) or candidates.get(text if is_number(text) else plain(text), ())

    return find


def is_number(word: str) -> bool:
    """Whether a word is written as a number: "7", "-1", "01", "1.0".

    >>> is_number("1.0"), is_number("n01440764")
    (True, False)
    """
    return _NUMBER.fullmatch(word) is not None


def position(word: str, classes: int) -> int | None:
    """The number of a class, counted from 0, that a word writes; None where it writes none of so many classes.

    >>> position("9", 10), position("10", 10), position("-1", 10)
    (9, None, None)
    """
    if _DIGITS.fullmatch(word) is None or len(word) > len(str(classes)) + 9:
        return None
    return int(word) if int(word) < classes else None


def label_numbers(labels: Sequence[str]) -> dict[str, int]:
    """The numbers that labels have of their own -> their classes; {} where they have none.

    A label, or one of its names, may be a number ("1", "01", "1.0").  Else labels have numbers where each holds exactly
    one and all are different ("class 1", "class 2"), unless these only count the classes ("LABEL_0", "LABEL_1").

    >>> label_numbers(["1", "2"]), label_numbers(["class 1", "class 2"]), label_numbers(["class 0", "class 1"])
    ({'1': 0, '2': 1}, {'1': 0, '2': 1}, {})
    """
    whole = {part.strip(): i for i, label in enumerate(labels) for part in label.split(",") if is_number(part.strip())}
    digits = [_DIGITS.findall(label) for label in labels]
    if whole or not all(len(numbers) == 1 for numbers in digits):
        return whole
    by_number = {numbers[0].lstrip("0") or "0": i for i, numbers in enumerate(digits)}
    ordered = all(number == str(i) for number, i in by_number.items())
    return {} if ordered or len(by_number) < len(labels) else by_number
