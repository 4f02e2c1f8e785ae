"""Repeated training of one recipe: only the seed of training differs, never the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from clearsight.auditing.evidence import share
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.data.datasets import Pictures
from clearsight.data.duplicates import likenesses
from clearsight.errors import Refused
from clearsight.models.model_folder import RECIPE
from clearsight.reporting.spread import between, deviation
from clearsight.training.history import Epoch
from clearsight.training.recipe import Recipe, as_begun, read_recipe
from clearsight.training.run_folder import METRICS, same_data
from clearsight.training.run_record import training_command
from clearsight.training.several_runs import TrainingJob, accuracies, each, run_jobs
from clearsight.training.training_data import portions

REPEAT = "repeat.json"


def repeat(
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
    """Train a recipe k times, in folder/run-1 to run-k; yields (run, epoch), writes repeat.json.

    Run i has the recipe's seed + i - 1 for weights, order, augmentation and dropout, and the recipe's own for the
    split, which is the same in all.  The same call goes on where a stopped one ended; a larger k adds runs.  Refused:
    k below 2 or below the runs that are there, and runs of other settings or pictures in the folder.
    """
    if k < 2:
        raise Refused(f"--repeat {k}: give at least 2; one run alone shows no spread")
    recipe = as_begun(recipe, folder / "run-1" / RECIPE)
    recipes = [replace(recipe, seed=recipe.seed + i, split_seed=recipe.divides()) for i in range(k)]
    _same_settings(folder, recipes)
    alike = likenesses(data.pictures, progress=progress)
    training_data = portions(data, alike, recipe.parts(), recipe.divides())
    for run_folder in _existing_runs(folder):
        same_data(run_folder, training_data)
    yield from run_jobs(
        (TrainingJob(f"run {i} of {k}, seed {r.seed}", data, r) for i, r in enumerate(recipes, 1)),
        folder,
        "run",
        alike=alike,
        command_line=f"{training_command(data, recipe, folder)} --repeat {k}",
        device=device,
        workers=workers,
        progress=progress,
        say=say,
    )
    write_whole(folder / REPEAT, json.dumps(summary(folder, k), indent=1) + "\n")


def _existing_runs(folder: Path) -> list[Path]:
    """The folders of the runs that were started, complete or not."""
    return [path.parent for path in folder.glob(f"run-*/{RECIPE}") if path.parent.name[4:].isdecimal()]


def _same_settings(folder: Path, recipes: list[Recipe]) -> None:
    """Refuse to add runs to those of another recipe, and to leave out runs that exist."""
    wanted = {f"run-{i}": recipe for i, recipe in enumerate(recipes, 1)}
    for run_folder in _existing_runs(folder):
        if run_folder.name not in wanted:
            existing = max(int(run.name.partition("-")[2]) for run in _existing_runs(folder))
            raise Refused(
                f"{folder} holds {existing} runs: give --repeat {existing} or more, or start in a new folder with -o"
            )
        if read_recipe(run_folder / RECIPE)[2] != wanted[run_folder.name]:
            raise Refused(
                f"{run_folder} was started with other settings: give the same ones, or start in a new folder with -o"
            )


def summary(folder: Path, k: int) -> dict[str, Any]:
    """The results of k finished runs: seed, folder and accuracy of each, and the spread of the accuracies."""
    runs = []
    for i, measures in enumerate(accuracies(folder, "run", k), 1):
        seed = read_recipe(folder / f"run-{i}" / RECIPE)[2].seed
        runs.append({"folder": f"run-{i}", "seed": seed, **measures})
    values = [float(r["accuracy"]) for r in runs]
    judged = json.loads((folder / "run-1" / METRICS).read_text(encoding="utf-8"))["judged_on"]
    spread = {"lowest": min(values), "median": median(values), "highest": max(values)}
    return {"schema": 1, "judged_on": judged, "runs": runs, "accuracy": spread, "spread": deviation(values)}


def lines(result: dict[str, Any], folder: Path) -> list[str]:
    """The same for the terminal."""
    spread, runs = result["accuracy"], result["runs"]
    accuracy = (
        f"{len(runs)} runs are right on {between([r['accuracy'] for r in runs], 'share')} of {result['judged_on']}, "
    )
    accuracy += f"median {share(spread['median'])}, standard deviation {share(result['spread'])}"
    ask = f"to compare their reasons too: clearsight compare {folder}"
    return [*each("run", runs), accuracy, ask, str(folder / REPEAT)]
