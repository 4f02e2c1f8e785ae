"""clearsight data check, augment, collect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from clearsight.cli.inputs import load_classifier, look_first, open_pictures
from clearsight.cli.options import (
    DATA,
    MODEL,
    DataOptions,
    LabelColumn,
    ModelOptions,
    Out,
    RunOptions,
    Seeded,
    Take,
    Told,
    grouped,
)  # fmt: skip
from clearsight.cli.output import sayer, tell
from clearsight.cli.usage import Verb, first_paragraph
from clearsight.core.catalogue import split_calls
from clearsight.errors import Refused


@grouped
def data_check(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    model: Annotated[
        str | None, typer.Option(help=f"Also look for label errors, with the predictions of this model: {MODEL}.")
    ] = None,
    out: Out = None,
    *,
    about_data: Annotated[DataOptions, Take("boxes", "voc_base", "masks", "label_column", "classes")],
    about_model: ModelOptions,
    run: RunOptions,
) -> None:
    """Say what is wrong with pictures: broken, double, odd, unbalanced, leaking from split to split, mislabelled.

    Also what is wrong with --boxes or --masks. All splits are checked. No file is moved or changed.
    """
    look_first([model] if model else [], [data])
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.curation.quality.check import check_data
    from clearsight.data.datasets import ALL
    from clearsight.data.truth_folders import open_truth

    judge = load_classifier(model, about_model, run, "data check") if model else None
    is_demo = data.partition(":")[0] == "demo"
    split = None if is_demo else ALL
    if is_demo or (about_data.boxes is None and about_data.masks is None):
        pictures = open_pictures(data, replace(about_data, split=split))
    else:
        if about_data.label_column is not None or about_data.classes is not None:
            raise Refused("--label-column and --classes are of pictures with a class: leave out --boxes and --masks")
        boxes, masks, base = about_data.boxes, about_data.masks, about_data.voc_base
        pictures = open_truth(data, boxes=boxes, masks=masks, split=split, voc_base=base)
    with progress(run.silent) as report_progress:
        checked = check_data(pictures, model=judge, seed=run.seed, progress=report_progress)
        with new_run("check", out, holds="check.json") as folder:
            page = checked.save(folder)
    tell({**checked.as_dict(), "folder": str(page.parent)}, [*checked.lines(), str(page)], run)


@grouped
def data_augment(
    data: Annotated[list[str], typer.Argument(metavar="PICTURE...", help=DATA)],
    augment: Annotated[
        list[str] | None,
        typer.Option("-a", "--augment", help='A row of the sheet, as in train: "crop, flip"; may be repeated.'),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of random versions of each picture.")] = 5,
    side: Annotated[int, typer.Option("--size", min=8, help="Side of the versions in pixels.")] = 224,
    out: Out = None,
    label_column: LabelColumn = None,
    *,
    run: Seeded,
) -> None:
    """Draw what augmentations make of pictures; without -a, all of them."""
    look_first([], data, augmentations=[c for words in augment or [] for c in split_calls(words)])
    from clearsight.core.preprocess import Preprocess
    from clearsight.core.run_names import new_folder
    from clearsight.curation.augment_preview import augment_pictures
    from clearsight.data.datasets import joined, open_each

    pictures = joined(open_each(data, label_column=label_column))
    pre = Preprocess((side, side), (0.5,) * 3, (0.5,) * 3, resize=side)
    sheets = augment_pictures(
        pictures, augment or [], pre, lambda: new_folder("augment", out), samples=samples, seed=run.seed
    )
    tell(sheets.as_dict(), sheets.lines(), run)


@grouped
def data_collect(
    query: Annotated[str, typer.Argument(metavar="QUERY", help='What is searched for: "red apple".')],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the data; each query adds a class.")],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures of this class.")] = 100,
    label: Annotated[str | None, typer.Option(help="Name of the class, if it is not the query.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="openverse, wikimedia; may be repeated.")] = None,
    licence: Annotated[list[str] | None, typer.Option(help="Such as cc0, by, by-sa; may be repeated.")] = None,
    side: Annotated[int, typer.Option("--size", help="Longest side to ask for, in pixels.")] = 1024,
    contact: Annotated[str, typer.Option(help="Your address, which the sources ask for.")] = "",
    *,
    run: Told,
) -> None:
    """Fetch pictures that everybody may use, with their licences, from Openverse and Wikimedia Commons.

    The query is sent to both. The same command continues where a stopped one ended. ATTRIBUTION.csv names the authors
    and licences.
    """
    from clearsight.cli.progress import progress
    from clearsight.curation.collection.collect import collect
    from clearsight.curation.collection.sources import FREE, known

    with progress(run.silent) as report_progress:
        collected = collect(
            query,
            out,
            count=count,
            label=label,
            sources=source or list(known()),
            licences=licence or FREE,
            size=side,
            contact=contact,
            progress=report_progress,
            say=sayer(run.silent),
        )
    tell(collected.as_dict(), collected.lines(), run)


data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Pictures before a model is trained: check, augment, collect.",
)
for name, verb in (("check", data_check), ("augment", data_augment), ("collect", data_collect)):
    data_app.command(name, cls=Verb, short_help=first_paragraph(verb))(verb)
