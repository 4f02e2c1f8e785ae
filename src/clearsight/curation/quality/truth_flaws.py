"""Flaws of annotations: boxes and class maps that cannot be used or are doubtful, and pictures without objects."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from clearsight.curation.quality.flaw import Flaw, alone
from clearsight.data.annotation_formats.regions import Box
from clearsight.data.datasets import Pictures
from clearsight.data.duplicates import Likeness
from clearsight.data.object_pictures import ADVICE, TITLES
from clearsight.data.truth_records import TruthProblem
from clearsight.errors import Refused
from clearsight.reporting.findings import Cell, Table


def annotation_flaws(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """A flaw for each kind of problem of the boxes or maps, with a table that says which file, object and box."""
    by_code: dict[str, list[TruthProblem]] = defaultdict(list)
    for problem in (*data.problems, *_of_maps(data)):
        by_code[problem.code].append(problem)
    rows = {picture.name: i for i, picture in enumerate(data.pictures)}
    for code in (code for code in TITLES if code in by_code):
        problems = by_code[code]
        names = tuple(dict.fromkeys(p.picture for p in problems))
        yield Flaw(
            TITLES[code],
            len(problems),
            f"{len(problems)} {TITLES[code]}, {_fate(problems)}",
            ADVICE[code],
            names,
            tables=(_table(problems),),
            shown=tuple(
                replace(alone(data, alike, rows[name]), boxes=_boxes(problems, name)) for name in names if name in rows
            ),
        )


def objects(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """How many boxes of each class there are, and how many pictures without any, which is information."""
    boxed = [(p.name, p.boxes) for p in data.pictures if p.boxes is not None]
    if not boxed:
        return
    empty = tuple(name for name, boxes in boxed if not len(boxes))
    labels = torch.cat([boxes.labels for _, boxes in boxed])
    counts = torch.bincount(labels, minlength=len(data.objects)).tolist()
    pictures = [sum(bool((boxes.labels == k).any()) for _, boxes in boxed) for k in range(len(data.objects))]
    rows: tuple[dict[str, Cell], ...] = tuple(
        {"class": word, "boxes": n, "pictures": shown}
        for word, n, shown in zip(data.objects, counts, pictures, strict=True)
    )
    yield Flaw(
        "objects",
        len(labels),
        f"{len(labels)} boxes of {len(data.objects)} classes; {len(empty)} of {len(boxed)} pictures show no object",
        "" if empty else "Add pictures without objects, so that false alarms on background can be counted.",
        empty,
        wrong=False,
        tables=(Table("Objects of each class", rows),),
    )


def _boxes(problems: Sequence[TruthProblem], name: str) -> tuple[Box, ...]:
    """The boxes of one picture that are told, as far as they are numbers."""
    boxes = [p.box for p in problems if p.picture == name and p.box is not None]
    return tuple(box for box in boxes if all(map(math.isfinite, box)))


def _fate(problems: Sequence[TruthProblem]) -> str:
    kept = sum(p.kept for p in problems)
    if 0 < kept < len(problems):
        return f"{kept} of them used"
    return "used all the same" if kept else "left out"


def _table(problems: Sequence[TruthProblem]) -> Table:
    rows: tuple[dict[str, Cell], ...] = tuple(
        {
            "picture": p.picture,
            "object": p.thing,
            "box": "" if p.box is None else ", ".join(f"{n:g}" for n in p.box),
            "what": p.words,
        }
        for p in problems
    )
    return Table("Each of them", rows)


def _of_maps(data: Pictures) -> Iterator[TruthProblem]:
    """What is wrong with the class maps, each of which is read."""
    for picture in data.pictures:
        if picture.pixels is None:
            continue
        try:
            for words in picture.pixels.read().problems:
                yield TruthProblem("map", picture.name, words=words, kept=True)
        except Refused as e:
            yield TruthProblem("unreadable", picture.name, words=str(e))
