"""Several trainings one after the other, each in a folder of its own: folds of the data, repeats of one recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight.auditing.evidence import share, span
from clearsight.core.progress import Progress
from clearsight.data.datasets import Pictures
from clearsight.data.duplicates import Likeness
from clearsight.models.model_folder import RECIPE
from clearsight.training.checkpoints import has_state
from clearsight.training.history import Epoch
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe
from clearsight.training.run_folder import METRICS


@dataclass(frozen=True)
class TrainingJob:
    """One training of several: its name in the progress output, its pictures and its recipe."""

    name: str
    data: Pictures
    recipe: Recipe


def run_jobs(
    jobs: Iterable[TrainingJob],
    folder: Path,
    kind: str,
    *,
    alike: Likeness,
    command_line: str,
    device: str,
    workers: int,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Iterator[tuple[int, Epoch]]:
    """Train each in folder/KIND-1, folder/KIND-2, ...; yields (number, epoch).

    A complete training is left as it is, a stopped one is resumed.  alike: the duplicates among the pictures, the same
    ones in all.  command_line: the command that trains all of them.  Only the first training says what it chose.
    """
    for number, job in enumerate(jobs, 1):
        job_folder = folder / f"{kind}-{number}"
        if complete(job_folder):
            continue
        say(job.name)
        begun = (job_folder / RECIPE).is_file()
        epochs = train(
            job.data,
            None if begun else job.recipe,
            job_folder,
            resume=begun,
            alike=alike,
            command_line=command_line,
            device=device,
            workers=workers,
            progress=progress,
            say=say if number == 1 else lambda line: None,
        )
        for epoch in epochs:
            yield number, epoch


def complete(folder: Path) -> bool:
    """Whether the training in this folder is complete."""
    return (folder / METRICS).is_file() and not has_state(folder)


def accuracies(folder: Path, kind: str, k: int) -> list[dict[str, Any]]:
    """accuracy, interval and n of folder/KIND-1 to KIND-k, each on the pictures that it was not trained on."""
    measures = [
        json.loads((folder / f"{kind}-{i + 1}" / METRICS).read_text(encoding="utf-8"))["accuracy"] for i in range(k)
    ]
    return [{"accuracy": f["value"], "interval": f["interval"], "n": f["n"]} for f in measures]


def each(kind: str, measures: Sequence[dict[str, Any]]) -> list[str]:
    """The accuracies for the terminal, a line each."""
    return [
        f"{kind} {i}: {share(f['accuracy'])} right ({span(f['interval'], f['n'])})" for i, f in enumerate(measures, 1)
    ]
