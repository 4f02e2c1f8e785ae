"""The numbers of the classes of objects: 0 to K - 1 in the order of the annotation's own list, never by arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearsight.core.label_names import plain
from clearsight.data.annotation_formats import yolo
from clearsight.data.annotation_formats.regions import Region
from clearsight.data.annotation_formats.sheets import AnnotationSet, named
from clearsight.errors import Refused

UNKNOWN = -1
NAME_FILES = ("classes.txt", "labels.txt", "data.yaml", "dataset.yaml", "obj.names")

Labels = Sequence[str] | Mapping[int, str] | str | Path


@dataclass(frozen=True)
class Numbering:
    """The classes, the number of each object, -1 where it is of none of them, and notes on how they were numbered."""

    classes: tuple[str, ...]
    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()


def labels_of(labels: Labels | None) -> Sequence[str] | Mapping[int, str] | None:
    """Labels as names or as number -> name, out of a file where it is one."""
    if not isinstance(labels, str | Path):
        return labels
    file = Path(labels)
    if not file.is_file():
        raise Refused(f"no labels at {file}", "give a YAML with names, a text with a name on each line, or a list")
    return yolo.names_in(file)


def number_classes(
    regions: Sequence[Region],
    annotations: AnnotationSet,
    labels: Sequence[str] | Mapping[int, str] | None,
    path: Path,
) -> Numbering:
    """Number the classes of regions.

    labels: the classes in their order, or a name for each number that the annotation writes; None for the classes that
    the annotation lists, else those that occur, by name.
    Refused: labels of which two are the same, and objects of which none has a class.
    """
    by_number: Mapping[int, str] = labels if isinstance(labels, Mapping) else {}
    if annotations.form == "YOLO" and labels is not None and not isinstance(labels, Mapping):
        by_number = dict(enumerate(labels))  # which are its numbers
    if isinstance(labels, Mapping):
        classes = tuple(dict.fromkeys(labels[number] for number in sorted(labels)))
    else:
        classes = tuple(labels or annotations.classes)
    words = [_word(region, by_number) for region in regions]
    if not classes:
        classes = tuple(sorted({word for word in words if word is not None}, key=lambda word: (_numeric(word), word)))
    if double := [word for word, n in Counter(classes).items() if n > 1]:
        raise Refused(f"labels name {double[0]!r} twice", "name each class once")
    by_word = {plain(word): number for number, word in reversed(list(enumerate(classes)))}
    by_word |= {word: number for number, word in enumerate(classes)}
    if regions and not classes:
        raise Refused(f"no object at {path} has a class", "name the class of each object in the annotation")
    numbers = [UNKNOWN if word is None else by_word.get(word, by_word.get(plain(word), UNKNOWN)) for word in words]
    notes = []
    counts = Counter(numbers)
    if regions and (empty := [word for number, word in enumerate(classes) if not counts[number]]):
        notes.append(f"{len(empty)} of {len(classes)} classes have no object: {named(empty)}")
    nameless = sorted({r.label for r in regions if r.numbered and r.label is not None}, key=lambda w: (_numeric(w), w))
    if nameless and not by_number:
        notes.append(f"{len(nameless)} classes go by their numbers ({named(nameless)}): {annotations.nameless}")
    return Numbering(classes, tuple(numbers), tuple(notes))


def _word(region: Region, by_number: Mapping[int, str]) -> str | None:
    """The class of a region in words."""
    label = region.label
    if label is not None and by_number and label.lstrip("-").isdecimal():
        return by_number.get(int(label))
    return label


def _numeric(word: str) -> float:
    """Words that are numbers first, by their size."""
    return float(word) if word.isascii() and word.isdecimal() else float("inf")
