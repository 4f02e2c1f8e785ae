"""clearsight export."""

from __future__ import annotations

from typing import Annotated

import typer

from clearsight.cli.inputs import load_model, look_first
from clearsight.cli.options import DATA, Model, ModelOptions, OfPictures, Out, RunOptions, grouped
from clearsight.cli.output import tell, typed_command
from clearsight.cli.truth import open_to_compare


@grouped
def export(
    model: Model = "demo",
    to: Annotated[
        str, typer.Option(help="Format: onnx, torch-export, openvino, triton (a model repository), tensorrt.")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="Numbers of the file: fp32, fp16, int8.")] = "fp32",
    verify: Annotated[
        str | None, typer.Option(metavar="DATA", help=f"Compare the file with the model on these pictures: {DATA}.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Pictures that int8 is calibrated on; by default those of --verify."),
    ] = None,
    agree: Annotated[
        float | None,
        typer.Option(help="Share of pictures, boxes or pixels that must get the same answer."),
    ] = None,
    out: Out = None,
    *,
    about_data: OfPictures,
    about_model: ModelOptions,
    run: RunOptions,
) -> None:
    """Write a model into a file that other programs run, and prove that it answers as the model does.

    Decoded pictures go in; probabilities and, behind averaged channels, the heatmap come out: resize, crop and
    normalisation are inside. Of a detector boxes come out, of a segmenter the class of each pixel. With --verify the
    same pictures go through both, and the exit status is 1 where --agree is missed. int8 leaves layers in float until
    it holds.
    """
    look_first([model], [words for words in (verify, calibrate) if words])
    from clearsight.cli.output import show_sheet
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.exporting.export import export as export_model

    loaded = load_model(model, about_model, run)
    data = None if verify is None else open_to_compare(loaded, verify, about_data)
    with new_run("export", out, holds="export.json") as folder, progress(run.silent) as report_progress:
        exported = export_model(
            loaded,
            folder,
            to,
            precision=precision,
            verify=data,
            calibrate=calibrate,
            agree=agree,
            seed=run.seed,
            command=typed_command(),
            progress=report_progress,
        )
    if exported.report is not None and not run.silent:
        show_sheet(exported.report, folder)
    tell(exported.as_dict(), exported.lines(), run)
    raise typer.Exit(exported.status)
