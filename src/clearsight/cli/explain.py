"""clearsight explain."""

from __future__ import annotations

from typing import Annotated

import typer

from clearsight.cli.inputs import hired, load_model, look_first, model_and_places, open_places
from clearsight.cli.options import MODEL, DataOptions, ModelOptions, Out, RunOptions, Take, WorkerOptions, grouped
from clearsight.cli.output import tell
from clearsight.cli.scenes import refuse_outlines
from clearsight.cli.texts import explain_texts_of
from clearsight.core.memory import starting
from clearsight.models.model_words import reads_texts

Words = Annotated[list[str], typer.Argument(metavar="[MODEL] PICTURE...", help=f"MODEL: {MODEL}. Then pictures.")]


@grouped
def explain(
    words: Words,
    method: Annotated[list[str] | None, typer.Option("-m", "--method", help="An explainer; may be repeated.")] = None,
    target: Annotated[
        str, typer.Option(help='A class (name or number), top1, top3, ..., or "a rather than b".')
    ] = "top1",
    out: Out = None,
    *,
    about_data: Annotated[
        DataOptions, Take("boxes", "voc_base", "masks", "split", "label_column", "text_column", "marks_column")
    ],
    about_model: ModelOptions,
    no_tests: Annotated[
        bool, typer.Option("--no-tests", help="Draw the maps without testing them, which is quicker.")
    ] = False,
    sharing: WorkerOptions,
    run: RunOptions,
) -> None:
    """Draw heatmaps side by side for pictures, test each, and save the raw maps as .npz.

    Of a detector each row is a box: "top3" is the three surest, a class its surest boxes, "a rather than b" why not b.
    Of a segmenter each row is the region that the model gives a class.

    A model of texts takes a text, or a file or table of texts, and shows each text in colours.

    A map that fails a test on its picture is drawn in grey. It must beat maps that do not depend on the model, change
    with the network's parameters and, where the method claims it, be complete. For this every explainer runs again on a
    network with random parameters: slow ones take twice as long, and up to six times where that map is alike.
    """
    name, places = model_and_places(words)
    if reads_texts(name):
        explain_texts_of(
            name, places, method or [], target, out, about_data, about_model, sharing, run, tests=not no_tests
        )
        return
    look_first([name], places, explainers=method or [])
    with starting():
        from clearsight.cli.progress import progress
        from clearsight.core.run_names import new_folder
        from clearsight.explaining.explain_pictures import explain_pictures

        model = load_model(name, about_model, run)
    refuse_outlines(model, about_data)
    data = open_places(places, about_data)
    with progress(run.silent) as report_progress, hired(sharing):
        explained = explain_pictures(
            model,
            data,
            method or [],
            target,
            lambda: new_folder("explain", out),
            seed=run.seed,
            tests=not no_tests,
            progress=report_progress,
        )
    tell(explained.as_dict(), explained.lines(), run)
