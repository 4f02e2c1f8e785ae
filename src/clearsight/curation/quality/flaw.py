"""A flaw of a data set, and the pictures shown with it."""

from __future__ import annotations

from dataclasses import dataclass

from clearsight.core.text import counted
from clearsight.data.annotation_formats.regions import Box
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.duplicates import Likeness
from clearsight.data.splits import named
from clearsight.reporting.findings import Cell, Table


@dataclass(frozen=True)
class Beside:
    """Pictures shown side by side, with a caption and facts.

    boxes: x0, y0, x1, y1 in pixels of the first picture, drawn on it.
    """

    pictures: tuple[Picture, ...]
    words: str = ""
    facts: tuple[tuple[str, Cell], ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Flaw:
    """One finding of the data check.

    name: one or two words; n: number of pictures, groups or classes; words: a sentence with the number; advice: what to
    do; names: all pictures or classes concerned; wrong: False where the finding is only information.
    """

    name: str
    n: int
    words: str
    advice: str = ""
    names: tuple[str, ...] = ()
    wrong: bool = True
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    shown: tuple[Beside, ...] = ()
    paper: str = ""

    @property
    def line(self) -> str:
        """The sentence with at most five names, and what to do."""
        sentence = f"{self.words}: {named(self.names)}." if self.names else f"{self.words}."
        return f"{sentence} {self.advice}".strip()


def beside(data: Pictures, alike: Likeness, i: int, j: int) -> Beside:
    """Two pictures side by side, with the kind of their likeness."""
    pair = next((p for p in alike.pairs if {p.first, p.second} == {i, j}), None)
    kind = pair.kind if pair else "through others"
    a, b = data.pictures[i], data.pictures[j]
    facts: list[tuple[str, Cell]] = [("how", kind)]
    if pair and pair.distance:
        facts.append(("largest difference, s.d.", pair.distance))
    facts += [("sizes", " and ".join(size_of(alike, k) for k in (i, j)))]
    return Beside((a, b), " and ".join(_where(p) for p in (a, b)), tuple(facts))


def alone(data: Pictures, alike: Likeness, i: int) -> Beside:
    """One picture with its size."""
    return Beside((data.pictures[i],), _where(data.pictures[i]), (("size", size_of(alike, i)),))


def _where(p: Picture) -> str:
    """Its class, or how many boxes it has, and its split in words."""
    label = " or ".join(p.labels) or "no label"
    if p.boxes is not None:
        label = counted(len(p.boxes), "box", "boxes")
    elif p.pixels is not None:
        label = ""
    return ", ".join(w for w in (label, p.split) if w)


def size_of(alike: Likeness, i: int) -> str:
    """Width and height in words."""
    return " × ".join(map(str, alike.sizes[i]))
