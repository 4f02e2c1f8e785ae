"""Marked characters of a text: ranges, or pieces that are looked for in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from clearsight.data.text_records import Mark
from clearsight.errors import Refused

RANGES = ("marks", "spans", "mark", "span")  # columns of ranges
PIECES = ("attacks", "attack", "rationale", "rationales", "evidence", "evidences", "highlight", "highlights")


def read_ranges(value: Any, length: int) -> tuple[Mark, ...] | None:
    """The ranges of a cell: [[3, 9], ...], [{"start": 3, "end": 9}, ...], or JSON of these; None where it is empty.

    length: how many characters the text has.  Refused: anything else, and ranges that leave the text.

    >>> read_ranges([[5, 9], {"start": 0, "end": 2}, [1, 3]], 9)
    ((0, 3), (5, 9))
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Refused(f"marks {value[:40]!r}: write ranges of characters, such as [[3, 9]]") from None
    if not isinstance(value, list):
        raise Refused(f"marks {str(value)[:40]!r}: write ranges of characters, such as [[3, 9]]")
    return joined(_range(entry, length) for entry in value)


def _range(entry: Any, length: int) -> Mark:
    ends = (entry.get("start"), entry.get("end")) if isinstance(entry, dict) else entry
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) < 2:
        raise Refused(f"the mark {str(entry)[:40]!r}: write its first character and the one behind it, such as [3, 9]")
    start, end = ends[0], ends[1]  # a name of what is marked may follow
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (start, end)):
        raise Refused(f"the mark {str(entry)[:40]!r}: its ends are whole numbers, such as [3, 9]")
    if not 0 <= start < end <= length:
        raise Refused(f"the mark [{start}, {end}] is not in the text, which has {length} characters")
    return start, end


def find_pieces(value: Any, text: str) -> tuple[tuple[Mark, ...] | None, list[str]]:
    """Where the pieces of a cell stand in the text, each wherever it occurs, and those that are not there.

    value: a piece, or a list of them; None and "" where there is none.  A piece that does not stand there as it is may
    be written percent-encoded in the text, as values in a URL are, in Latin-1 and with + for a blank.  A replacement
    character in a piece, which readers write for a byte that they cannot read, stands for any character.

    >>> find_pieces("a b", "x=a%20b&y=a+b")
    (((2, 7), (10, 13)), [])
    """
    pieces = [value] if isinstance(value, str) else value
    if not pieces:
        return None, []
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise Refused(f"marked pieces {str(value)[:40]!r}: write a text, or a list of texts")
    found: list[Mark] = []
    lost = []
    decoded, places = percent_decoded(text)
    for piece in filter(None, pieces):
        here = [(i, i + len(piece)) for i in _starts(text, piece)]
        here = here or [(places[i], places[i + len(piece)]) for i in _starts(decoded, piece)]
        found += here
        if not here:
            lost.append(piece)
    return (joined(found) if found else None), lost


def percent_decoded(text: str) -> tuple[str, list[int]]:
    """A text with %41 read as the Latin-1 character it stands for and + as a blank, and where each character begins.

    >>> percent_decoded("a%42+c")
    ('aB c', [0, 1, 4, 5, 6])
    """
    characters, places, i = [], [], 0
    while i < len(text):
        digits = text[i + 1 : i + 3]
        encoded = text[i] == "%" and len(digits) == 2 and all(d in "0123456789abcdefABCDEF" for d in digits)
        characters.append(chr(int(digits, 16)) if encoded else text[i].replace("+", " "))
        places.append(i)
        i += 3 if encoded else 1
    return "".join(characters), [*places, len(text)]


def joined(ranges: Iterable[Mark]) -> tuple[Mark, ...]:
    """Ranges in order; those that touch or overlap are one."""
    merged: list[Mark] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def _starts(text: str, piece: str) -> list[int]:
    """Where a piece begins in a text, overlaps included; its \\ufffd stands for any character."""
    pattern = re.escape(piece).replace("\ufffd", ".")
    return [found.start() for found in re.finditer(f"(?={pattern})", text, re.DOTALL)]
