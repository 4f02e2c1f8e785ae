"""k-fold cross-validation: every picture is judged once, by a model that has not seen it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import pstdev
from typing import Any

from clearsight.auditing.evidence import share, span
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.statistics import wilson
from clearsight.data.datasets import Pictures, part_of
from clearsight.data.duplicates import likenesses
from clearsight.data.splits import folds
from clearsight.errors import Refused
from clearsight.training.history import Epoch
from clearsight.training.recipe import Recipe
from clearsight.training.run_folder import command
from clearsight.training.several_runs import TrainingJob, accuracies, each, run_jobs

FOLDS = "folds.json"


def cross_validate(
    data: Pictures,
    recipe: Recipe,
    k: int,
    folder: Path,
    *,
    device: str = "auto",
    workers: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[int, Epoch]]:
    """Train k models, each on all but one fold, in folder/fold-1 to fold-k; yields (fold, epoch), writes folds.json.

    Each class is equally often in every fold, near-duplicates in one.  Of the other folds a part chooses the epoch.
    A test split of the data's own is left out altogether.  The same call goes on where a stopped one ended.  Refused: a
    k for which the rarest class is too rare.
    """
    alike = likenesses(data.pictures, progress=progress)
    broken = {name for name, _ in alike.broken}
    rows = [i for i, p in enumerate(data.pictures) if p.labels and p.name not in broken and part_of(p.split) != "test"]
    if not rows:
        raise Refused(f"no picture of {data.root} has a class: folds are made of labelled pictures")
    labels, groups = [data.pictures[i].labels[0] for i in rows], [alike.groups[i] for i in rows]
    fold = dict(zip(rows, folds(labels, groups, k, seed=recipe.divides()), strict=True))
    own = alike.of(rows)

    def one(number: int) -> TrainingJob:
        parts = ["test" if fold[i] == number else "train" for i in rows]
        pictures = [replace(data.pictures[i], split=part) for i, part in zip(rows, parts, strict=True)]
        called = f"fold {number + 1} of {k}"
        note = f"{called}: its test pictures train the models of the other folds"
        return TrainingJob(called, replace(data, pictures=tuple(pictures), notes=(*data.notes, note)), recipe)

    yield from run_jobs(
        map(one, range(k)),
        folder,
        "fold",
        alike=own,
        told=f"{command(data, recipe, folder)} --folds {k}",
        device=device,
        workers=workers,
        progress=progress,
        say=say,
    )
    write_whole(folder / FOLDS, json.dumps(summary(folder, k), indent=1) + "\n")


def summary(folder: Path, k: int) -> dict[str, Any]:
    """What k finished folds come to: each one's accuracy, and that over all pictures with its interval."""
    found = accuracies(folder, "fold", k)
    n = sum(f["n"] for f in found)
    right = sum(round(f["accuracy"] * f["n"]) for f in found)
    return {
        "schema": 1,
        "folds": found,
        "accuracy": {"value": right / n, "interval": wilson(right, n), "n": n},
        "spread": pstdev([f["accuracy"] for f in found]),
    }


def lines(told: dict[str, Any], folder: Path) -> list[str]:
    """The same for the terminal."""
    whole = told["accuracy"]
    over = f"over all: {share(whole['value'])} right ({span(whole['interval'], whole['n'])}), folds differ by "
    return [*each("fold", told["folds"]), f"{over}{share(told['spread'])} (standard deviation)", str(folder / FOLDS)]
