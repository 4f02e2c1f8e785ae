"""clearsight train."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from clearsight.cli.inputs import look_first
from clearsight.cli.options import LabelColumn, MarksColumn, Out, Placed, TextColumn, Workers, grouped
from clearsight.cli.output import is_typed, sayer
from clearsight.cli.train_classifiers import place_runs, show_runs, train_runs
from clearsight.cli.train_objects import ObjectOptions, train_on_objects
from clearsight.core.memory import ALL, reuse_memory
from clearsight.errors import Refused
from clearsight.training.recipe import Recipe

if TYPE_CHECKING:
    from clearsight.data.datasets import Pictures

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
    reuse_memory(ALL)
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
    pictures = training_pictures(data, label_column, text_column, marks_column)
    several = bool(folds or repeat)
    folder = place_runs(out, folds, repeat, resume)
    if resume and not several:
        same_recipe(folder, {name: value for name, value in asdict(recipe).items() if is_typed(context, name)})
    silent = run.silent or not first()
    with unless_empty(folder), progress(silent, pictures.thing) as report_progress:
        how = {"device": run.device, "workers": workers, "progress": report_progress, "say": sayer(silent)}
        try:
            train_runs(pictures, recipe, folder, folds, repeat, resume, how)
        except KeyboardInterrupt:
            on = f"-o {folder}{'' if several else ' --resume'}"
            raise Refused(f"stopped; the same command with {on} continues the training") from None
    if first():
        show_runs(folder, folds, repeat, run)


def training_pictures(
    data: str, label_column: str | None, text_column: str | None = None, marks_column: str | None = None
) -> Pictures:
    """All splits of the pictures, or texts, that the words name."""
    from clearsight.data.datasets import ALL, open_data

    split = None if data == "demo" else ALL
    return open_data(data, split=split, label_column=label_column, text_column=text_column, marks_column=marks_column)
