"""clearsight train, of classifiers: one run, several, or the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearsight.cli.options import RunOptions
from clearsight.cli.output import show_sheet, tell
from clearsight.training.recipe import Recipe

if TYPE_CHECKING:
    from clearsight.data.datasets import Pictures
    from clearsight.training.history import Epoch


def place_runs(out: Path | None, folds: int | None, repeat: int | None, resume: bool) -> Path:
    """The folder of a training, or of several."""
    from clearsight.core.run_names import new_folder
    from clearsight.training.run_folder import place

    if folds:
        return new_folder("folds", out, holds="fold-1")
    if repeat:
        return new_folder("repeat", out, holds="run-1")
    return place(out, resume)


def train_runs(
    pictures: Pictures,
    recipe: Recipe,
    folder: Path,
    folds: int | None,
    repeat: int | None,
    resume: bool,
    how: dict[str, Any],
) -> None:
    """Train, and say each epoch as it ends."""
    from clearsight.training.cross_validation import cross_validate
    from clearsight.training.loop import train as train_one
    from clearsight.training.repeats import repeat as train_again

    say: Callable[[str], None] = how["say"]
    if folds:
        for number, epoch in cross_validate(pictures, recipe, folds, folder, **how):
            say(_line(epoch, folder / f"fold-{number}"))
    elif repeat:
        for number, epoch in train_again(pictures, recipe, repeat, folder, **how):
            say(_line(epoch, folder / f"run-{number}"))
    else:
        for epoch in train_one(pictures, recipe, folder, resume=resume, **how):
            say(_line(epoch, folder))


def _line(epoch: Epoch, folder: Path) -> str:
    """The epoch for the terminal, and where the first model is, which can be used while training goes on."""
    return epoch.line() if epoch.number or not epoch.of else f"{epoch.line()}; saved in {folder}"


def show_runs(folder: Path, folds: int | None, repeat: int | None, run: RunOptions) -> None:
    from clearsight.reporting.report import Report
    from clearsight.training import cross_validation, repeats
    from clearsight.training.run_folder import METRICS

    if folds:
        summary = cross_validation.summary(folder, folds)
        tell(summary, cross_validation.lines(summary, folder), run)
    elif repeat:
        summary = repeats.summary(folder, repeat)
        tell(summary, repeats.lines(summary, folder), run)
    elif run.json:
        print((folder / METRICS).read_text(encoding="utf-8"), end="")
    elif run.quiet:
        print(folder)
    else:
        show_sheet(Report.read(folder), folder)
