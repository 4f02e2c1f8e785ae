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
from clearsight.models.model_folder import RECIPE
from clearsight.training.history import Epoch
from clearsight.training.preparation import check_division
from clearsight.training.recipe import Recipe, as_begun, marks_file
from clearsight.training.run_record import training_command
from clearsight.training.several_runs import TrainingJob, accuracies, each, run_jobs
from clearsight.training.validate_recipe import validate

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

    Each class is equally frequent in every fold, and near-duplicates are in one fold.  A part of the other folds is
    val, which chooses the epoch.  Pictures in a test split of the data are left out.  The same call goes on where a
    stopped one ended.

    Refused: data without labels, a k for which the rarest class is too rare, folds of which one leaves a group without
    members or train without annotations, and a recipe that continues from a run, which has divided the pictures already
    and has seen some of every fold.
    """
    if recipe.from_run is not None:
        raise Refused(
            f"--folds with --from: {recipe.from_run} has seen pictures of every fold, so no fold could judge",
            "leave one of them out; --repeat goes with --from",
        )
    recipe = as_begun(recipe, folder / "fold-1" / RECIPE)
    alike = likenesses(data.pictures, progress=progress)
    broken = {name for name, _ in alike.broken}
    rows = [i for i, p in enumerate(data.pictures) if p.labels and p.name not in broken and part_of(p.split) != "test"]
    if not rows:
        raise Refused(f"no picture of {data.root} has a class: cross-validation needs labelled pictures")
    labels, groups = [data.pictures[i].labels[0] for i in rows], [alike.groups[i] for i in rows]
    fold = dict(zip(rows, folds(labels, groups, k, seed=recipe.divides()), strict=True))
    labelled_alike = alike.of(rows)

    def job(number: int) -> TrainingJob:
        parts = ["test" if fold[i] == number else "train" for i in rows]
        pictures = [replace(data.pictures[i], split=part) for i, part in zip(rows, parts, strict=True)]
        name = f"fold {number + 1} of {k}"
        note = f"{name}: its test pictures train the models of the other folds"
        return TrainingJob(name, replace(data, pictures=tuple(pictures), notes=(*data.notes, note)), recipe)

    if recipe.groups or marks_file(recipe) is not None:
        validate(recipe, device)
        for number in range(k):  # so that none is refused after others were written
            check_division(job(number).data, labelled_alike, recipe)
    yield from run_jobs(
        map(job, range(k)),
        folder,
        "fold",
        alike=labelled_alike,
        command_line=f"{training_command(data, recipe, folder)} --folds {k}",
        device=device,
        workers=workers,
        progress=progress,
        say=say,
    )
    write_whole(folder / FOLDS, json.dumps(summary(folder, k), indent=1) + "\n")


def summary(folder: Path, k: int) -> dict[str, Any]:
    """The results of k finished folds: the accuracy of each, and that over all pictures with its interval."""
    measures = accuracies(folder, "fold", k)
    n = sum(f["n"] for f in measures)
    right = sum(round(f["accuracy"] * f["n"]) for f in measures)
    return {
        "schema": 1,
        "folds": measures,
        "accuracy": {"value": right / n, "interval": wilson(right, n), "n": n},
        "spread": pstdev([f["accuracy"] for f in measures]),
    }


def lines(result: dict[str, Any], folder: Path) -> list[str]:
    """The same for the terminal."""
    accuracy = result["accuracy"]
    total = (
        f"over all: {share(accuracy['value'])} right ({span(accuracy['interval'], accuracy['n'])}), folds differ by "
    )
    return [
        *each("fold", result["folds"]),
        f"{total}{share(result['spread'])} (standard deviation)",
        str(folder / FOLDS),
    ]
