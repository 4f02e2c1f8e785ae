"""clearsight train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearsight.cli.inputs import look_first
from clearsight.cli.options import (
    LabelColumn,
    MarksColumn,
    ObjectOptions,
    Out,
    Placed,
    RunOptions,
    TextColumn,
    Workers,
    grouped,
)
from clearsight.cli.output import is_typed, sayer, show_sheet, tell
from clearsight.cli.train_objects import refuse_object_options, train_on_objects
from clearsight.errors import Refused
from clearsight.training.recipe import Recipe

if TYPE_CHECKING:
    from clearsight.data.datasets import Pictures
    from clearsight.training.history import Epoch

TrainingData = Annotated[
    str, typer.Argument(metavar="DATA", help="A folder of pictures (class/x.jpg), or a CSV; or texts.")
]


@grouped
def train(
    context: typer.Context,
    data: TrainingData,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in -o DIR.")] = False,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Number of models of a cross-validation, each judged on one part.")
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(min=2, help="Number of runs of the same recipe and split, from other seeds.")
    ] = None,
    label_column: LabelColumn = None,
    text_column: TextColumn = None,
    marks_column: MarksColumn = None,
    workers: Workers = 0,
    *,
    run: Placed,
    recipe: Recipe,
    objects: ObjectOptions,
) -> None:
    """Train a model on a folder of pictures, or on texts: a model folder that every other command takes.

    Pictures in class folders train a classifier, those with boxes a detector (--boxes), with masks a segmenter
    (--masks).

    Without options a pretrained network is fine-tuned, or a small one is trained where the pictures are small; what is
    chosen is printed with the reason. --resume continues a run that was stopped; on a CPU with as many threads as
    before it ends with the same weights bit for bit. Folds and repeats continue by themselves.
    """
    look_first([], [data])
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import unless_empty
    from clearsight.training.run_folder import first, same_recipe

    if repeat and (folds or resume):
        why = "folds differ in their pictures, repeats do not" if folds else "the same command continues by itself"
        raise Refused(f"--repeat with {'--folds' if folds else '--resume'}: {why}; leave one of them out")
    columns = {"label_column": label_column, "text_column": text_column, "marks_column": marks_column}
    others = {"folds": folds, "repeat": repeat, **columns}
    if train_on_objects(context, data, out, resume, workers, run, recipe, objects, others):
        return
    refuse_object_options(context)
    pictures = training_pictures(data, label_column, text_column, marks_column)
    several = bool(folds or repeat)
    folder = _place(out, folds, repeat, resume)
    if resume and not several:
        same_recipe(folder, {name: value for name, value in asdict(recipe).items() if is_typed(context, name)})
    silent = run.silent or not first()
    with unless_empty(folder), progress(silent, pictures.thing) as report_progress:
        how = {"device": run.device, "workers": workers, "progress": report_progress, "say": sayer(silent)}
        try:
            _run(pictures, recipe, folder, folds, repeat, resume, how)
        except KeyboardInterrupt:
            on = f"-o {folder}{'' if several else ' --resume'}"
            raise Refused(f"stopped; the same command with {on} continues the training") from None
    if first():
        _show(folder, folds, repeat, run)


def training_pictures(
    data: str, label_column: str | None, text_column: str | None = None, marks_column: str | None = None
) -> Pictures:
    """All splits of the pictures, or texts, that the words name."""
    from clearsight.data.datasets import ALL, open_data

    split = None if data == "demo" else ALL
    return open_data(data, split=split, label_column=label_column, text_column=text_column, marks_column=marks_column)


def _place(out: Path | None, folds: int | None, repeat: int | None, resume: bool) -> Path:
    """The folder of a training, or of several."""
    from clearsight.core.run_names import new_folder
    from clearsight.training.run_folder import place

    if folds:
        return new_folder("folds", out, holds="fold-1")
    if repeat:
        return new_folder("repeat", out, holds="run-1")
    return place(out, resume)


def _run(
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


def _show(folder: Path, folds: int | None, repeat: int | None, run: RunOptions) -> None:
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
