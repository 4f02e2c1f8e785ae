"""clearsight features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clearsight.cli.inputs import load_classifier, look_first, open_pictures, seconds, typed
from clearsight.cli.options import Data, Model, ModelOptions, OfPictures, Out, RunOptions, grouped
from clearsight.cli.output import tell

if TYPE_CHECKING:
    from pathlib import Path

    from clearsight.feature_report.report import FeatureReport


@grouped
def features(
    model: Model = "demo",
    data: Data = "demo",
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer; may be repeated. auto takes the last feature maps.")
    ] = None,
    unit: Annotated[list[int] | None, typer.Option(help="Number of a unit of the layer; may be repeated.")] = None,
    method: Annotated[
        list[str] | None, typer.Option("-m", "--method", help="A visualisation; may be repeated.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="A class to visualise; may be repeated.")] = None,
    out: Out = None,
    budget: Annotated[str | None, typer.Option(help="Time, shared among the methods: 60s, 5m.")] = None,
    *,
    about_data: OfPictures,
    about_model: ModelOptions,
    run: RunOptions,
) -> None:
    """See inside a network: what its layers and units respond to, as pages that open from disk.

    Without -m every method that applies is run: activations, patches, visualise, neighbours, embedding, factors and,
    where there are masks or boxes, dissection.
    """
    time_limit = seconds(budget)
    look_first([model], [data], visualisations=method or [])
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.feature_report.report import features as run_features

    classifier = load_classifier(model, about_model, run, "features")
    pictures = open_pictures(data, about_data)
    with new_run("features", out, holds="index.html") as folder, progress(run.silent) as report_progress:
        report = run_features(
            classifier,
            pictures,
            layer=layer or "auto",
            units=unit or (),
            methods=method or (),
            target=target or (),
            seed=run.seed,
            budget=time_limit,
            progress=report_progress,
            model_words=typed(about_model),
            data_words=typed(about_data),
        )
        index = report.save(folder)
    _show(report, index, folder, run)


def _show(report: FeatureReport, index: Path, folder: Path, run: RunOptions) -> None:
    result = report.as_dict()
    left_out = [f"left out {m}: {why}" for m, why in report.left_out]
    left_out += [f"left out {b['file']}: {b['reason']}" for b in result["broken"]]
    pages = [f"{p.title or 'index'}: {p.address}" for p in report.pages]
    tell({**result, "folder": str(folder)}, [*left_out, *pages, str(index)], run)
