"""The thief's pictures, and those on which clones are judged."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.core.classifier import Classifier
from clearsight.core.text import counted
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.images import of_bytes
from clearsight.data.text_inputs import input_bytes
from clearsight.errors import Refused
from clearsight.stealing.theft import Exam
from clearsight.stealing.victim import Victim

MOST = 20000  # pictures of a pool
_BYTES = 4e8  # of their pixels
KEPT = 0.2  # share of a pool that judges clones, where no other pictures are given
MOST_KEPT = 1000


@dataclass(frozen=True, eq=False)
class Loot:
    """The pixels (P, C, *S) of a thief's pictures, the pictures kept to judge clones, and notes on both."""

    x: Tensor
    kept: Pictures
    notes: tuple[str, ...]


def loot_of(model: Classifier, pool: Pictures, test: Pictures | None, *, seed: int) -> Loot:
    """Read the pool as the model takes pictures; without other pictures a part of it is kept to judge clones.

    Pictures that cannot be read are left out, and those that judge clones are not asked about.

    Refused: a pool without a picture that can be read.
    """
    order = torch.randperm(len(pool.pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    notes: list[str] = []
    if test is None:
        n = min(MOST_KEPT, max(1, round(KEPT * len(order))))
        kept = replace(pool, pictures=tuple(pool.pictures[i] for i in sorted(order[:n])))
        rows = order[n:]
        notes.append(f"{counted(n, 'picture')} of the pool were kept to judge clones (--test DATA names others).")
    else:
        kept = test
        judging = {os.path.realpath(p.path) for p in test.pictures}
        rows = [i for i in order if os.path.realpath(pool.pictures[i].path) not in judging]
        if len(rows) < len(order):
            notes.append(f"{counted(len(order) - len(rows), 'picture')} of the pool judge clones, and are not asked.")
    most = min(MOST, max(1, int(_BYTES / (4 * model.preprocess.channels * _area(model)))))
    if len(rows) > most:
        notes.append(f"Of the pool a draw of {most} is used: more do not fit into memory.")
    x, broken = read(model, [pool.pictures[i] for i in rows[:most]])
    if broken:
        notes.append(f"{counted(broken, 'picture')} of the pool cannot be read and are left out.")
    if not len(x):
        raise Refused(
            f"no picture of {pool.root} is left for the thief to ask about",
            "give pictures that neither judge clones (--test) nor are broken (--pool DATA)",
        )
    return Loot(x, kept, tuple(notes))


def _area(model: Classifier) -> int:
    area = 1
    for side in model.preprocess.size:
        area *= side
    return area


def read(model: Classifier, pictures: list[Picture]) -> tuple[Tensor, int]:
    """Pixels (n, C, *S) of the pictures that can be read, and how many cannot."""
    found, broken = [], 0
    for picture in pictures:
        try:
            found.append(input_bytes(picture, model.preprocess)[0])
        except Refused:
            broken += 1
    shape = (0, model.preprocess.channels, *model.preprocess.size)
    return (of_bytes(torch.stack(found)) if found else torch.empty(shape)), broken


def exam_of(case: Case, victim: Victim, rows: list[int] | None = None) -> Exam:
    """The pictures of a case, or these rows of it, as an exam of clones; the victim says what its answers are."""
    rows = list(range(len(case.pictures))) if rows is None else rows
    x = case.pixels(rows)
    return Exam(x, victim.probabilities(x, 0).argmax(1), case.truth[rows])
