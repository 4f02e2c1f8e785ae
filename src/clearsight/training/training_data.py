"""The data of a training run: its labelled pictures, their classes, and their division into train, val and test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
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
from clearsight.training.grouping import Grouping

NAMED = 5  # broken files
_LARGEST = 10**9  # above it a number orders as a word


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Labelled pictures that can be read, and the part of each: "train", "val" or "test".

    labels: the classes, sorted; y (N, K): the share of each class; a picture of several has them in equal parts.
    notes: what was chosen and what was left out, such as broken files.  grouping: the groups of the pictures, where the
    recipe names columns.  times (N,): how often each picture is seen in an epoch on average; None for once each.
    """

    data: Pictures
    pictures: tuple[Picture, ...]
    seen: tuple[Seen, ...]
    labels: tuple[str, ...]
    y: Tensor
    parts: tuple[str, ...]
    notes: tuple[str, ...]
    grouping: Grouping | None = None
    times: Tensor | None = None

    def rows(self, part: str) -> list[int]:
        return [i for i, p in enumerate(self.parts) if p == part]

    def epoch_rows(self, seed: int) -> list[int]:
        """The training pictures of an epoch, those seen several times as often: as many in every epoch.

        A picture that is seen 2.3 times on average is seen 2 or 3 times in an epoch, by a systematic draw from a random
        order (Madow & Madow 1944, doi:10.1214/aoms/1177731312).
        """
        rows = self.rows("train")
        if self.times is None:
            return rows
        generator = torch.Generator().manual_seed(seed % 2**63)
        order = [rows[int(i)] for i in torch.randperm(len(rows), generator=generator)]
        reached = self.times[order].double().cumsum(0)
        reached[-1] = reached[-1].round()
        marks = (reached + torch.rand((), generator=generator).double()).floor().long()
        copies = marks.diff(prepend=marks.new_zeros(1))
        return [row for row, n in zip(order, copies.tolist(), strict=True) for _ in range(n)]

    def counts(self, part: str = "") -> dict[str, int]:
        """How many pictures of each class are in a part, or in all; one with several classes counts for its first."""
        counts = Counter(p.labels[0] for i, p in enumerate(self.pictures) if part in ("", self.parts[i]))
        return {label: counts[label] for label in self.labels}

    @property
    def digest(self) -> str:
        """16 hex digits over the pictures' names, classes and parts."""
        entries = [(p.name, p.labels, part) for p, part in zip(self.pictures, self.parts, strict=True)]
        of = None if self.grouping is None else (self.grouping.names, self.grouping.of.tolist())
        text = repr(entries if of is None else (entries, of))
        return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def portions(data: Pictures, alike: Likeness, shares: tuple[float, float, float], seed: int) -> TrainingData:
    """Divide pictures into train, val and test: as their folders say, else by class, near-duplicates kept together.

    alike: the duplicates, sizes and broken files among data.pictures.  Where folders give no val, a part of train is
    taken for it; where they give no test, there is none.

    Refused: fewer than two classes, labels that are measurements, and no pictures to train with.
    """
    names = dict(alike.broken)
    readable = [i for i, p in enumerate(data.pictures) if p.name not in names]
    in_split = [i for i in readable if part_of(data.pictures[i].split)] or readable
    labelled = [i for i in in_split if data.pictures[i].labels]
    notes = list(data.notes)
    broken = tuple(sorted({*data.broken, *alike.broken}))
    if broken:
        shown = "; ".join(f"{name} ({reason})" for name, reason in broken[:NAMED])
        others = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        verb = "is left out" if len(broken) == 1 else "are left out"
        total = f" of {len(broken) + len(readable)} files" if len(broken) > len(readable) else ""
        notes.append(f"{counted(len(broken), 'broken file')}{total} {verb}: {shown}{others}")
    if len(in_split) < len(readable):
        notes.append(f"{len(readable) - len(in_split)} {data.thing}s in no split are left out")
    if len(labelled) < len(in_split):
        notes.append(f"{len(in_split) - len(labelled)} {data.thing}s have no class and are left out")
    pictures, naming_notes = with_nameable_classes(tuple(data.pictures[i] for i in labelled), data)
    notes += naming_notes
    labels = classes(pictures)
    if len(labels) < 2:
        what = f"all {data.thing}s are of one class, {labels[0]}" if labels else f"no {data.thing} has a class"
        such = "rows of two labels" if data.are_texts else "folders cat/ and dog/"
        raise Refused(f"{what}: a classifier needs two or more, such as {such} in {data.root}")
    if _are_measurements(labels, len(pictures)):
        raise Refused(
            f"the labels of {data.root} are {len(labels)} numbers such as {labels[0]}, nearly all different: a "
            "classifier learns classes, not values; put them in ranges, such as left, straight and right"
        )
    groups = [alike.groups[i] for i in labelled]
    first = [p.labels[0] for p in pictures]
    parts, part_notes = assign_parts(pictures, first, groups, shares, seed, data.thing)
    index = {label: k for k, label in enumerate(labels)}
    y = torch.zeros(len(pictures), len(labels))
    for row, p in zip(y, pictures, strict=True):
        for label in p.labels:
            row[index[label]] = 1 / len(p.labels)
    seen = tuple(s for i in labelled if (s := alike.seen[i]) is not None)
    prepared = TrainingData(data, pictures, seen, labels, y, parts, (*notes, *alike.notes, *part_notes))
    for part in ("train", "val"):
        if not prepared.rows(part):
            raise Refused(
                f"no {data.thing} of {data.root} is left for {part}: give more {data.thing}s, or other --shares"
            )
    return prepared


def at_random(data: TrainingData, seed: int) -> TrainingData:
    """The data with the labels of train and of val permuted within each part; those of test stay.

    Only y changes, so that each class is as frequent as before (Adebayo et al. 2018, arXiv:1810.03292, section 5).
    """
    y = data.y.clone()
    for number, part in enumerate(("train", "val")):
        rows = torch.tensor(data.rows(part))
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2 * (seed % 2**62) + number))
        y[rows] = data.y[rows[drawn]]
    return replace(data, y=y, notes=(AT_RANDOM, *data.notes))


def classes(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """The classes of pictures in order: numbers by their value, words by the alphabet."""
    words = {label for p in pictures for label in p.labels}
    if all(position(w, _LARGEST) is not None for w in words):
        return tuple(sorted(words, key=lambda w: (int(w), w)))
    return tuple(sorted(words))


def with_nameable_classes(pictures: tuple[Picture, ...], data: Pictures) -> tuple[tuple[Picture, ...], list[str]]:
    """Pictures whose class names a table can hold, and a note; class numbers other than 0, 1, 2, ... become names.

    A number that is not the place of its class among the labels would be read as another class later.
    """
    words = {label for p in pictures for label in p.labels}
    if odd := [word for word in sorted(words) if "|" in word or word != word.strip()]:
        raise Refused(
            f"the class {odd[0]!r} has a | in its name, or a blank at an end, which a table cannot hold: rename it"
        )
    numbered = data.numbered and len(words) > 1
    if not numbered or {str(i) for i in range(len(words))} == words:
        return pictures, []
    names = {word: f"{data.column} {word}" for word in words}
    first = names[min(words, key=lambda word: (len(word), word))]
    note = f"column {data.column} holds other numbers than 0 to {len(words) - 1}: classes are named such as {first!r}"
    return tuple(replace(p, labels=tuple(names[word] for word in p.labels)) for p in pictures), [note]


def _are_measurements(labels: Sequence[str], pictures: int) -> bool:
    """Whether the classes are measurements: fractions, nearly one for each picture."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return any(not v.is_integer() for v in numbers) and 2 * len(labels) > pictures


def assign_parts(
    pictures: Sequence[Picture],
    labels: Sequence[str],
    groups: Sequence[int],
    shares: tuple[float, float, float],
    seed: int,
    thing: str,
    divide: Callable[..., tuple[str, ...]] = split,
) -> tuple[tuple[str, ...], list[str]]:
    """The part of each picture, and sentences about it.

    divide: how pictures without parts are divided, called as `splits.split` is.
    """
    parts = [part_of(p.split) for p in pictures]
    if not any(parts):
        divided = divide(labels, groups, shares, seed=seed)
        counts = ", ".join(f"{divided.count(p)} {p}" for p in PARTS)
        return divided, [
            f"divided by class, near-duplicates together: {counts} {thing}s",
            *split_notes(labels, groups, divided),
        ]
    notes = []
    if "train" not in parts:
        raise Refused(
            f"the data has splits ({', '.join(sorted({g for g in parts if g}))}) but no train: name one of them train"
        )
    if "val" not in parts:
        train = [i for i, g in enumerate(parts) if g == "train"]
        part = shares[1] / (shares[0] + shares[1])
        redivided = split([labels[i] for i in train], [groups[i] for i in train], (1 - part, part, 0.0), seed=seed)
        for i, word in zip(train, redivided, strict=True):
            parts[i] = word
        notes.append(f"no val among the splits: {parts.count('val')} {thing}s of train, by class, choose the epoch")
    if "test" not in parts:
        notes.append("no test among the splits: val chose the epoch, so its numbers are optimistic")
    leaked = _count_leaked(parts, groups)
    if leaked:
        notes.append(
            f"{leaked} {thing}s of val and test have a near-duplicate in train, so their numbers are optimistic"
        )
    return tuple(parts), notes


def _count_leaked(parts: Sequence[str], groups: Sequence[int]) -> int:
    """How many pictures of val and test have a near-duplicate in train."""
    train_groups = {g for g, part in zip(groups, parts, strict=True) if part == "train"}
    return sum(g in train_groups for g, part in zip(groups, parts, strict=True) if part in ("val", "test"))
