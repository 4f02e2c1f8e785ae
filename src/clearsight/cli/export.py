"""clearsight export."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clearsight.cli.inputs import load_model, look_first
from clearsight.cli.options import Model, ModelOptions, Out, RunOptions, grouped
from clearsight.cli.output import tell


@grouped
def export(
    model: Model = "demo",
    to: Annotated[str, typer.Option(help="Format: onnx.")] = "onnx",
    out: Out = None,
    *,
    about_model: ModelOptions,
    run: RunOptions,
) -> None:
    """Write a model into a file that other programs run: pictures in, probabilities and heatmap out."""
    look_first([model], [])
    from clearsight.core.run_names import new_run
    from clearsight.exporting.export import export as export_model

    kind: Any = to
    loaded = load_model(model, about_model, run)
    with new_run("export", out, holds="model.onnx") as folder:
        exported = export_model(loaded, folder, kind)
    tell(exported.as_dict(), exported.lines(), run)
