"""The pictures of a training run: which are there, what they are, and which of them train, choose and test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearsight.core.label_names import position
from clearsight.core.text import counted
from clearsight.data.datasets import Picture, Pictures, part_of
from clearsight.data.duplicates import Likeness, Seen
from clearsight.data.splits import PARTS, split, split_notes
from clearsight.errors import Refused
from clearsight.models.model_folder import AT_RANDOM

NAMED = 5  # broken files
_LARGEST = 10**9  # above it a number orders as a word


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Labelled pictures that can be read, and the part of each: "train", "val" or "test".

    labels: the classes, sorted; y (N, K): the share of each class; a picture of several has them in equal parts.
    notes: what was chosen and left out, broken files among it.
    """

    data: Pictures
    pictures: tuple[Picture, ...]
    seen: tuple[Seen, ...]
    labels: tuple[str, ...]
    y: Tensor
    parts: tuple[str, ...]
    notes: tuple[str, ...]

    def rows(self, part: str) -> list[int]:
        return [i for i, p in enumerate(self.parts) if p == part]

    def counts(self, part: str = "") -> dict[str, int]:
        """How many pictures of each class stand in a part, or in all; one of several classes counts for its first."""
        found = Counter(p.labels[0] for i, p in enumerate(self.pictures) if part in ("", self.parts[i]))
        return {label: found[label] for label in self.labels}

    @property
    def digest(self) -> str:
        """16 hex digits over the pictures' names, classes and parts."""
        said = [(p.name, p.labels, part) for p, part in zip(self.pictures, self.parts, strict=True)]
        return hashlib.sha256(repr(said).encode(errors="backslashreplace")).hexdigest()[:16]


def portions(data: Pictures, alike: Likeness, shares: tuple[float, float, float], seed: int) -> TrainingData:
    """Divide pictures into train, val and test: as their folders say, else by class, near-duplicates kept together.

    alike: what was found about data.pictures when they were read.  Where folders give no val, a part of train is taken
    for it; where they give no test, there is none.  Refused: fewer than two classes, and no pictures to train with.
    """
    names = dict(alike.broken)
    there = [i for i, p in enumerate(data.pictures) if p.name not in names]
    inside = [i for i in there if part_of(data.pictures[i].split)] or there
    known = [i for i in inside if data.pictures[i].labels]
    notes = list(data.notes)
    broken = tuple(sorted({*data.broken, *alike.broken}))
    if broken:
        shown = "; ".join(f"{name} ({reason})" for name, reason in broken[:NAMED])
        rest = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        left = "is left out" if len(broken) == 1 else "are left out"
        of = f" of {len(broken) + len(there)} files" if len(broken) > len(there) else ""
        notes.append(f"{counted(len(broken), 'broken file')}{of} {left}: {shown}{rest}")
    if len(inside) < len(there):
        notes.append(f"{len(there) - len(inside)} pictures in no split are left out")
    if len(known) < len(inside):
        notes.append(f"{len(inside) - len(known)} pictures have no class and are left out")
    pictures, told = with_nameable_classes(tuple(data.pictures[i] for i in known), data)
    notes += told
    labels = classes(pictures)
    if len(labels) < 2:
        what = f"all pictures are of one class, {labels[0]}" if labels else "no picture has a class"
        raise Refused(f"{what}: a classifier needs two or more, such as folders cat/ and dog/ in {data.root}")
    if _measured(labels, len(pictures)):
        raise Refused(
            f"the labels of {data.root} are {len(labels)} numbers such as {labels[0]}, hardly any of them twice: a "
            "classifier learns classes, not values; put them in ranges, such as left, straight and right"
        )
    groups = [alike.groups[i] for i in known]
    first = [p.labels[0] for p in pictures]
    parts, more = _parts(pictures, first, groups, shares, seed)
    index = {label: k for k, label in enumerate(labels)}
    y = torch.zeros(len(pictures), len(labels))
    for row, p in zip(y, pictures, strict=True):
        for label in p.labels:
            row[index[label]] = 1 / len(p.labels)
    seen = tuple(s for i in known if (s := alike.seen[i]) is not None)
    found = TrainingData(data, pictures, seen, labels, y, parts, (*notes, *alike.notes, *more))
    for part in ("train", "val"):
        if not found.rows(part):
            raise Refused(f"no picture of {data.root} is left for {part}: give more pictures, or other --shares")
    return found


def at_random(found: TrainingData, seed: int) -> TrainingData:
    """The same with the labels of train and of val drawn anew among the pictures of each; those of test stay.

    Only y changes, so that each class is as frequent as before (Adebayo et al. 2018, arXiv:1810.03292, section 5).
    """
    y = found.y.clone()
    for number, part in enumerate(("train", "val")):
        rows = torch.tensor(found.rows(part))
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2 * (seed % 2**62) + number))
        y[rows] = found.y[rows[drawn]]
    return replace(found, y=y, notes=(AT_RANDOM, *found.notes))


def classes(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """The classes of pictures in order: numbers by their value, words by the alphabet."""
    words = {label for p in pictures for label in p.labels}
    if all(position(w, _LARGEST) is not None for w in words):
        return tuple(sorted(words, key=lambda w: (int(w), w)))
    return tuple(sorted(words))


def with_nameable_classes(pictures: tuple[Picture, ...], data: Pictures) -> tuple[tuple[Picture, ...], list[str]]:
    """Pictures whose classes a table can name, and a note; class numbers other than 0, 1, 2, ... are named as such.

    A number that is not the place of its class among the labels would be read as another class later.
    """
    words = {label for p in pictures for label in p.labels}
    if odd := [word for word in sorted(words) if "|" in word or word != word.strip()]:
        raise Refused(
            f"the class {odd[0]!r} has a | in its name, or a blank at its ends, which a table cannot hold: call it "
            "otherwise"
        )
    numbered = data.numbered and len(words) > 1
    if not numbered or {str(i) for i in range(len(words))} == words:
        return pictures, []
    named = {word: f"{data.column} {word}" for word in words}
    first = named[min(words, key=lambda word: (len(word), word))]
    note = f"column {data.column} holds other numbers than 0 to {len(words) - 1}: classes are called like {first!r}"
    return tuple(replace(p, labels=tuple(named[word] for word in p.labels)) for p in pictures), [note]


def _measured(labels: Sequence[str], pictures: int) -> bool:
    """Whether the classes are measurements: fractions, nearly one for each picture."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return any(not v.is_integer() for v in numbers) and 2 * len(labels) > pictures


def _parts(
    pictures: Sequence[Picture],
    labels: Sequence[str],
    groups: Sequence[int],
    shares: tuple[float, float, float],
    seed: int,
) -> tuple[tuple[str, ...], list[str]]:
    """The part of each picture, and sentences about it."""
    given = [part_of(p.split) for p in pictures]
    if not any(given):
        parts = split(labels, groups, shares, seed=seed)
        told = ", ".join(f"{parts.count(p)} {p}" for p in PARTS)
        return parts, [
            f"divided by class, near-duplicates together: {told} pictures",
            *split_notes(labels, groups, parts),
        ]
    notes = []
    if "train" not in given:
        raise Refused(f"the data has splits ({', '.join(sorted({g for g in given if g}))}) but no train: name one so")
    if "val" not in given:
        train = [i for i, g in enumerate(given) if g == "train"]
        part = shares[1] / (shares[0] + shares[1])
        again = split([labels[i] for i in train], [groups[i] for i in train], (1 - part, part, 0.0), seed=seed)
        for i, word in zip(train, again, strict=True):
            given[i] = word
        notes.append(f"no val among the splits: {given.count('val')} pictures of train, by class, choose the epoch")
    if "test" not in given:
        notes.append("no test among the splits: val chose the epoch, so its numbers flatter the model")
    across = _across(given, groups)
    if across:
        notes.append(
            f"{across} pictures of val and test have a near-duplicate in train: their numbers flatter the model"
        )
    return tuple(given), notes


def _across(parts: Sequence[str], groups: Sequence[int]) -> int:
    """How many pictures outside train have one like them inside."""
    trained = {g for g, part in zip(groups, parts, strict=True) if part == "train"}
    return sum(g in trained for g, part in zip(groups, parts, strict=True) if part in ("val", "test"))
