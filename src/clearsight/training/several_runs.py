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
from clearsight.training.checkpoints import stopped
from clearsight.training.history import Epoch
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe
from clearsight.training.run_folder import METRICS


@dataclass(frozen=True)
class TrainingJob:
    """One training of several: what it is called while it goes on, its pictures and its recipe."""

    called: str
    data: Pictures
    recipe: Recipe


def run_jobs(
    several: Iterable[TrainingJob],
    folder: Path,
    kind: str,
    *,
    alike: Likeness,
    told: str,
    device: str,
    workers: int,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Iterator[tuple[int, Epoch]]:
    """Train each in folder/KIND-1, folder/KIND-2, ...; yields (number, epoch).

    What is complete is left as it is, what was stopped goes on.  alike: the duplicates among the pictures, the same
    ones in all.  told: the command that makes all of them.  Of what is chosen, say is told by the first alone.
    """
    for number, one in enumerate(several, 1):
        here = folder / f"{kind}-{number}"
        if complete(here):
            continue
        say(one.called)
        begun = (here / RECIPE).is_file()
        going = train(
            one.data,
            None if begun else one.recipe,
            here,
            resume=begun,
            alike=alike,
            told=told,
            device=device,
            workers=workers,
            progress=progress,
            say=say if number == 1 else lambda line: None,
        )
        for epoch in going:
            yield number, epoch


def complete(folder: Path) -> bool:
    """Whether a training in this folder has come to its end."""
    return (folder / METRICS).is_file() and not stopped(folder)


def accuracies(folder: Path, kind: str, k: int) -> list[dict[str, Any]]:
    """accuracy, interval and n of folder/KIND-1 to KIND-k, each on the pictures that were kept from it."""
    found = [
        json.loads((folder / f"{kind}-{i + 1}" / METRICS).read_text(encoding="utf-8"))["accuracy"] for i in range(k)
    ]
    return [{"accuracy": f["value"], "interval": f["interval"], "n": f["n"]} for f in found]


def each(kind: str, found: Sequence[dict[str, Any]]) -> list[str]:
    """The same for the terminal, a line each."""
    return [f"{kind} {i}: {share(f['accuracy'])} right ({span(f['interval'], f['n'])})" for i, f in enumerate(found, 1)]
