"""What is wrong with boxes: without area, beyond the picture, of unknown classes, twice, or in other units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearsight.data.truth_classes import UNKNOWN, Numbering
from clearsight.data.truth_records import TruthProblem
from clearsight.errors import Refused, nearest

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]

_SLACK = 1.0  # pixels by which a box may stick out, from rounding or from counting from 1, before it is a problem
_FAR = 1e7  # pixels; a coordinate beyond it is damaged
_SAME = 0.9  # intersection over union above which two boxes of a class are one object twice
_FEW = 10  # boxes below which the units of a whole set cannot be told


@dataclass(frozen=True)
class Table:
    """All boxes of a set in columns.

    names (P,), sizes (P, 2): of the pictures, width and height; 0 where a picture is broken.  rows (N,): the picture of
    each box, in order.  things (N,): what each box is called in its file.  boxes (N, 4): in pixels as written.
    labels (N,): class numbers, -1 where unknown.  words (N,): the class as written.  crowd (N,).
    """

    names: tuple[str, ...]
    sizes: Floats
    rows: NDArray[np.int64]
    things: tuple[str, ...]
    boxes: Floats
    labels: NDArray[np.int64]
    words: tuple[str | None, ...]
    crowd: Marks


def refuse_other_units(table: Table, form: str, path: Path) -> None:
    """Refuse boxes of which all lie in the first pixel: they are fractions, where the format takes pixels."""
    sides = table.sizes[table.rows]
    if np.isfinite(table.boxes).all() and (sides > 2).all() and _are_fractions(table.boxes):
        first = f"{table.names[table.rows[0]]} {table.things[0]}"
        raise Refused(
            f"all {len(table.boxes)} boxes of {form} at {path} lie between 0 and 1, such as {first} at "
            f"{_shown(table.boxes[0])}: they look like fractions of the picture, but {form} takes pixels",
            "multiply them by the picture's width and height",
        )


def _are_fractions(boxes: Floats) -> bool:
    return bool(boxes.min() >= 0 and boxes.max() <= 1 and (boxes != np.floor(boxes)).any())


def find_problems(table: Table, numbering: Numbering) -> tuple[list[TruthProblem], Marks]:
    """All problems of the boxes, and which boxes are kept (N,)."""
    if not len(table.boxes):
        return [], np.zeros(0, bool)
    x0, y0, x1, y1 = table.boxes.T
    wide, high = table.sizes[table.rows].T
    with np.errstate(invalid="ignore"):
        damaged = ~np.isfinite(table.boxes).all(1) | (np.abs(table.boxes).max(1) > _FAR)
        flat = ~damaged & ((x1 <= x0) | (y1 <= y0))
        outside = ~damaged & ~flat & ((x1 <= 0) | (y1 <= 0) | (x0 >= wide) | (y0 >= high))
        sticking = np.maximum.reduce([-x0, -y0, x1 - wide, y1 - high])
        beyond = ~damaged & ~flat & ~outside & (sticking > _SLACK)
        good = ~damaged & ~flat & ~outside
        inside = np.minimum(x1, wide) - np.maximum(x0, 0), np.minimum(y1, high) - np.maximum(y0, 0)
        tiny = good & (np.minimum(*inside) <= 1)
    unknown = good & (table.labels == UNKNOWN)
    kept = good & ~unknown
    looks = _guess_corners(table, flat, beyond)
    problems = [
        *_each(table, damaged, "damaged", lambda i: "a coordinate that is not a number, or far outside the picture"),
        *_each(table, flat, "no-area", lambda i: _no_area(table, i)),
        *_each(table, outside, "outside", lambda i: f"it lies outside the picture of {_size(table, i)} pixels{looks}"),
        *_each(table, beyond, "beyond", lambda i: _beyond(table, i, float(sticking[i])) + looks, kept=True),
        *_each(table, unknown, "unknown-class", lambda i: _unknown(table.words[i], numbering.classes)),
        *_each(table, tiny & kept, "one-pixel", lambda i: _tiny(table, i), kept=True),
        *_duplicates(table, kept),
        *_of_the_set(table, good, sticking),
    ]
    return problems, kept


def _each(
    table: Table, which: Marks, code: str, words: Callable[[int], str], kept: bool = False
) -> Iterator[TruthProblem]:
    for i in np.flatnonzero(which).tolist():
        yield _problem(table, i, code, words(i), kept)


def _problem(table: Table, i: int, code: str, words: str, kept: bool) -> TruthProblem:
    x0, y0, x1, y1 = table.boxes[i].tolist()
    return TruthProblem(code, table.names[table.rows[i]], table.things[i], (x0, y0, x1, y1), words, kept)


def _size(table: Table, i: int) -> str:
    return " x ".join(f"{n:g}" for n in table.sizes[table.rows[i]])


def _shown(box: Floats) -> str:
    return ", ".join(f"{n:g}" for n in box)


def _no_area(table: Table, i: int) -> str:
    """Why a box has no area: what its numbers look like."""
    x0, y0, x1, y1 = table.boxes[i]
    wide, high = table.sizes[table.rows[i]]
    words = f"a box of {x1 - x0:g} x {y1 - y0:g} pixels has no area"
    if x1 == x0 or y1 == y0:
        return words
    if min(x1, y1) > 0 and x0 + x1 <= wide and y0 + y1 <= high:
        return f"{words}; perhaps its corners are swapped, or {x1:g} and {y1:g} are its width and height"
    return f"{words}; perhaps its corners are swapped"


def _beyond(table: Table, i: int, sticking: float) -> str:
    return f"it sticks out of the picture of {_size(table, i)} pixels by {sticking:g}, cut off at the edge"


def _tiny(table: Table, i: int) -> str:
    x0, y0, x1, y1 = table.boxes[i]
    return f"it has {x1 - x0:g} x {y1 - y0:g} pixels, perhaps a click without a drag"


def _unknown(word: str | None, classes: Sequence[str]) -> str:
    if word is None:
        return "it has no class"
    return f"class {word!r} is none of the {len(classes)} classes: {nearest(word, classes)}"


def _guess_corners(table: Table, flat: Marks, beyond: Marks) -> str:
    """A guess at boxes that stick out, where all of the set would fit if width and height were the far corner."""
    x0, y0, x1, y1 = table.boxes.T
    wide, high = table.sizes[table.rows].T
    with np.errstate(invalid="ignore"):
        far_x, far_y = x1 - x0, y1 - y0
        fits = (far_x > x0) & (far_y > y0) & (far_x <= wide) & (far_y <= high)
    if beyond.any() and len(table.boxes) > 1 and fits.all():
        return "; every box of the set would fit if its width and height were its far corner (x0, y0, x1, y1)"
    return ""


def _duplicates(table: Table, kept: Marks) -> Iterator[TruthProblem]:
    """Boxes of the same class that lie on an earlier one."""
    rows = np.flatnonzero(kept & ~table.crowd)
    first, second = _pairs(table.rows[rows])
    a, b = rows[first], rows[second]
    same = table.labels[a] == table.labels[b]
    a, b = a[same], b[same]
    p, q = table.boxes[a], table.boxes[b]
    sides = np.clip(np.minimum(p[:, 2:], q[:, 2:]) - np.maximum(p[:, :2], q[:, :2]), 0, None)
    common = sides.prod(1)
    union = (p[:, 2:] - p[:, :2]).prod(1) + (q[:, 2:] - q[:, :2]).prod(1) - common
    twice = common > _SAME * union
    seen: set[int] = set()
    for i, j, share in zip(a[twice].tolist(), b[twice].tolist(), (common / union)[twice].tolist(), strict=True):
        if j not in seen:
            seen.add(j)
            words = f"it lies on {table.things[i]} of the same class (intersection over union {share:.2f})"
            yield _problem(table, j, "duplicate", words, kept=True)


def _pairs(groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs i < j of the same group; groups: sorted numbers.

    >>> [pair.tolist() for pair in _pairs(np.array([4, 4, 4, 7]))]
    [[0, 0, 1], [1, 2, 2]]
    """
    ends = np.searchsorted(groups, groups, side="right")
    later = ends - np.arange(len(groups)) - 1
    first = np.repeat(np.arange(len(groups)), later)
    starts = np.cumsum(later) - later
    second = first + 1 + np.arange(len(first)) - np.repeat(starts, later)
    return first, second


def _of_the_set(table: Table, good: Marks, sticking: Floats) -> Iterator[TruthProblem]:
    """What the boxes of the whole set show of how their coordinates count."""
    boxes, sizes = table.boxes[good], table.sizes[table.rows[good]]
    if not len(boxes):
        return
    over = np.flatnonzero(good & (sticking > 0) & (sticking <= _SLACK))
    if len(over) and boxes.min() >= 1 and (boxes == np.floor(boxes)).all():
        i = int(over[0])
        words = "no box of the set begins at 0 and this one ends beyond the picture: perhaps they count from 1"
        yield _problem(table, i, "one-based", words, kept=True)
    if len(boxes) >= _FEW and 50 < boxes.max() <= 100 and sizes.min() >= 200:
        i = int(np.flatnonzero(good)[int(boxes.max(1).argmax())])
        words = "no coordinate of the set is above 100, though the pictures are larger: perhaps they are per cent"
        yield _problem(table, i, "per-cent", words, kept=True)
