"""clearsight compare."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from clearsight.cli.inputs import look_first
from clearsight.cli.options import (
    DATA,
    DataOptions,
    Labels,
    Method,
    Only,
    Out,
    PreprocessWords,
    RunOptions,
    ScoresWord,
    Trust,
    grouped,
)
from clearsight.cli.output import end, typed_command
from clearsight.core.catalogue import split_calls


@grouped
def compare(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folders of models, of audits, or of train --repeat; or a MODEL."),
    ],
    data: Annotated[
        str | None, typer.Option(help=f"{DATA}; by default the test pictures of the models' own split.csv.")
    ] = None,
    out: Out = None,
    only: Only = None,
    method: Method = "auto",
    *,
    about_data: DataOptions,
    labels: Labels = None,
    preprocess: PreprocessWords = None,
    scores: ScoresWord = None,
    trust: Trust = False,
    run: RunOptions,
) -> None:
    """Show what a repair changed (two runs), or what equal accuracy hides (more): accuracy, reasons and maps of runs.

    Of two runs the first is before and the second after: the report names the pictures that were mended and broken,
    tests the difference of accuracy (McNemar, with its interval) and draws the maps of both side by side. Models are
    audited by accuracy and trustworthiness, audits are taken as they are. Trust needs --boxes or --masks, or marked
    characters of texts; how alike the maps of two runs are does not. --labels, --preprocess and --scores are of
    exported files that do not say theirs.

    Detectors are compared by --boxes and segmenters by --masks: what became of every object, the paired difference of
    AP50 or of mean IoU, and boxes or class maps before and after.
    """
    what: Any = scores
    explainers = [] if method == "auto" else [method]
    checks = ", ".join(only) if only else None
    look_first([], [data] if data else [], checks=split_calls(checks or ""), explainers=explainers)
    from clearsight.cli.progress import progress
    from clearsight.comparing.compare import compare as compare_runs
    from clearsight.core.run_names import new_run

    with new_run("compare", out) as folder, progress(run.silent) as report_progress:
        report = compare_runs(
            words,
            data,
            **asdict(about_data),
            labels=labels,
            preprocess=preprocess,
            scores=what,
            only=checks,
            method=method,
            seed=run.seed,
            device=run.device,
            trust=trust,
            command=typed_command(),
            progress=report_progress,
        )
        report.save(folder)
    end(report, folder, run)
