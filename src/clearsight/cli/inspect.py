"""clearsight inspect."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from clearsight.cli.inputs import load_model, look_first, models_and_data, open_pictures
from clearsight.cli.options import DATA, MODEL, ModelOptions, NamedData, Out, Placed, grouped
from clearsight.cli.output import tell


@grouped
def inspect(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]... [DATA]", help=f"MODEL: {MODEL}. Then, perhaps, {DATA}.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every layer by itself, however many there are.")] = False,
    out: Out = None,
    *,
    about_model: ModelOptions,
    about_data: NamedData,
    run: Placed,
) -> None:
    """Describe a model layer by layer, what will not work with it, and the line that mends that.

    Several models stand side by side, with size, speed and, where pictures are given, accuracy. With -o the layers are
    drawn too. --weights goes to the networks that are named by a library.
    """
    names, data = models_and_data(words or ["demo"])
    look_first(names, [data] if data else [])
    from clearsight.auditing.diagnosis import inspect as look
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.inspecting.compare_models import compare_models
    from clearsight.inspecting.layer_drawing import draw_tables
    from clearsight.inspecting.layer_table import layer_tables
    from clearsight.models.model_words import LIBRARIES

    bare = replace(about_model, weights=None)
    models = [load_model(n, about_model if n.startswith(LIBRARIES) or len(names) == 1 else bare, run) for n in names]
    pictures = open_pictures(data, about_data) if data else None
    tables, without_table = layer_tables(models)
    result: dict[str, Any] = {"layers": [t.as_dict() for _, t in tables]}
    result["left_out"] = [{"model": source, "why": why} for source, why in without_table]
    if len(models) == 1:
        inspection = look(models[0], pictures)
        result |= inspection.as_dict()
        lines = [*(line for _, t in tables for line in (*t.lines(all=every), "")), *inspection.lines()]
    else:
        with progress(run.silent) as report_progress:
            comparison = compare_models(models, pictures, progress=report_progress)
        result |= comparison.as_dict()
        lines = comparison.lines()
    if out and tables:
        with new_run("inspect", out, holds="layers-1.svg") as folder:
            drawn = [str(path) for path in draw_tables(tables, folder)]
        result["drawings"] = drawn
        lines += ["", *drawn]
    lines += [f"no table of the layers of {source}: {why}" for source, why in without_table]
    tell(result, lines, replace(run, quiet=False))
