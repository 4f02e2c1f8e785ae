"""Likely label errors: pictures that a model confidently assigns to another class than their label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import share
from clearsight.core.classifier import Classifier
from clearsight.core.label_names import first_name
from clearsight.core.progress import Progress
from clearsight.core.text import counted
from clearsight.curation.quality.confident_learning import label_errors
from clearsight.curation.quality.flaw import Beside, Flaw
from clearsight.data.datasets import Picture, Pictures, part_of
from clearsight.data.duplicates import Likeness
from clearsight.data.splits import named
from clearsight.errors import Refused
from clearsight.models.model_folder import trained_on
from clearsight.reporting.findings import Cell, Table

PAPER = "Northcutt, Jiang & Chuang 2021, arXiv:1911.00068"
TOO_RIGHT = 0.995  # accuracy above which a model has most likely been trained on these very pictures
FEWEST = 5  # labelled pictures of a class, for others to be suspected of being of it


def suspects(
    data: Pictures, alike: Likeness, model: Classifier, *, seed: int = 0, progress: Progress | None = None
) -> Iterator[Flaw]:
    """Likely label errors among the pictures with one label.  Refused: multi-label models and regression models.

    A model reveals little about pictures that it was trained on, since it has learned their errors: the notes count
    the pictures that it was trained on or is likely to have been trained on.
    """
    if not model.one_of_many:
        raise Refused("the search for label errors needs a model that gives one class per picture: give such a model")
    good = tuple(p for p, s in zip(data.pictures, alike.seen, strict=True) if s)
    if not good:
        return
    case = Case(model, replace(data, pictures=good), seed=seed, progress=progress)
    single = (case.truth.sum(1) == 1).nonzero()[:, 0]
    if not len(single):
        yield Flaw("label errors", 0, "No picture has exactly one label to compare with the model", wrong=False)
        return
    chances = model.chances(case.logits.double())[single].numpy()
    given = case.truth[single].to(torch.int64).argmax(1).numpy()
    rows, likely = label_errors(chances, given, fewest=FEWEST)
    labelled = np.bincount(given, minlength=len(model.labels))
    words = list(map(first_name, model.labels))
    pictures = [case.pictures[int(single[r])] for r in rows]
    shown = tuple(
        Beside(
            (p,),
            f"filed under {words[given[r]]}, looks like {words[j]} ({share(float(chances[r, j]))})",
            (("chance of its label", float(chances[r, given[r]])), *([("split", p.split)] if p.split else [])),
        )
        for p, r, j in zip(pictures, rows, likely, strict=True)
    )
    right = float((chances.argmax(1) == given).mean())
    confused = Counter((words[given[r]], words[j]) for r, j in zip(rows, likely, strict=True))
    table: tuple[dict[str, Cell], ...] = tuple(
        {"filed under": a, "looks like": b, "pictures": n} for (a, b), n in confused.most_common()
    )
    n = len(rows)
    yield Flaw(
        "label errors",
        n,
        f"{counted(n, 'picture looks', 'pictures look')} surely like another class than {'its' if n == 1 else 'their'} "
        f"label, of {len(single)} with one label",
        "Look at them in this order; the model may be wrong as well." if n else "",
        tuple(f"{p.name} (filed under {words[given[r]]}, looks like {words[j]} {share(float(chances[r, j]))})"
              for p, r, j in zip(pictures, rows, likely, strict=True)),
        wrong=bool(n),
        notes=(*training_warnings(model, case.pictures, right), *_rare_classes_note(labelled, words)),
        tables=(Table("By class", table),) if table else (),
        shown=shown,
        paper=PAPER,
    )  # fmt: skip


def training_warnings(model: Classifier, pictures: list[Picture], right: float) -> tuple[str, ...]:
    """Warnings where the model was trained on these pictures, or seems to be."""
    tail = "it has learned their label errors and finds few of them: use a model that was trained on other pictures"
    try:
        shared = len(trained_on(model.source, [p.path for p in pictures]))
    except Refused as e:
        return (f"whether the model was trained on these pictures is unknown ({e}); if so, {tail}",)
    if shared:
        return (f"the model was trained on {shared} of these {len(pictures)} pictures: {tail}",)
    notes = []
    train = sum(part_of(p.split) == "train" for p in pictures)
    if train:
        notes.append(f"{train} pictures are of the train split; if the model was trained on them, {tail}")
    if right >= TOO_RIGHT:
        notes.append(
            f"the model is right on {share(right)} of the pictures, as if it was trained on them: if so, {tail}"
        )
    return tuple(notes) or ("this is valid only if the model was not trained on these pictures",)


def _rare_classes_note(labelled: NDArray[np.int64], words: list[str]) -> tuple[str, ...]:
    rare = [words[j] for j in np.flatnonzero((labelled > 0) & (labelled < FEWEST))]
    return (
        (f"no picture is suspected to belong to a class with fewer than {FEWEST} pictures: {named(rare)}",)
        if rare
        else ()
    )
