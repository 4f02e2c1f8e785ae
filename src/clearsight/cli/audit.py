"""clearsight audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clearsight.cli.inputs import hired, load_model, look_first, seconds, typed
from clearsight.cli.options import (
    Data,
    DataOptions,
    Method,
    Model,
    ModelOptions,
    Only,
    Out,
    RunOptions,
    WorkerOptions,
    grouped,
)
from clearsight.cli.output import end, sayer, typed_command
from clearsight.cli.truth import open_for
from clearsight.core.catalogue import split_calls
from clearsight.core.memory import starting
from clearsight.errors import Refused


@grouped
def audit(
    model: Model = "demo",
    data: Data = "demo",
    out: Out = None,
    only: Only = None,
    method: Method = "auto",
    gate: Annotated[Path | None, typer.Option(help="Bars that must hold (TOML or JSON); exit status 1 if not.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the checks, shared among them: 60s, 5m.")] = None,
    *,
    about_data: DataOptions,
    about_model: ModelOptions,
    sharing: WorkerOptions,
    run: RunOptions,
) -> None:
    """Run the checks on a model and pictures, and write report.html and report.json.

    The costly certified-robustness, purification, model-stealing and membership-inference run only by --only.

    A detector is judged by --boxes and a segmenter by --masks, each by checks of its own kind.
    Without arguments the embedded EfficientNet-Lite0 is audited on ten real photos. Given the folder of an audit that
    was stopped (-o DIR), it goes on where that ended.
    """
    limit = seconds(budget)
    checks = ", ".join(only) if only else None
    explainers = [] if method == "auto" else [method]
    look_first([model], [data], checks=split_calls(checks or ""), explainers=explainers)
    with starting():
        from clearsight.auditing.audit import Stopped, parse_checks, run_audit
        from clearsight.auditing.gate import bars_for, read_gate
        from clearsight.cli.progress import progress
        from clearsight.core.run_names import new_run

        read_gate(gate) if gate else ()  # refused before the model is loaded, which takes seconds
        loaded = load_model(model, about_model, run)
        calls = parse_checks(checks, loaded.kind)
        bars = bars_for(gate, calls, loaded.kind)
    pictures = open_for(loaded, data, about_data)
    with (
        new_run("audit", out, holds="report.json") as folder,
        progress(run.silent, pictures.thing) as report_progress,
        hired(sharing),
    ):
        try:
            report = run_audit(
                loaded,
                pictures,
                calls,
                bars=bars,
                folder=folder,
                method=method,
                seed=run.seed,
                budget=limit,
                command=typed_command(),
                model_words=typed(about_model),
                data_words=typed(about_data),
                progress=report_progress,
                say=sayer(run.silent),
            )
        except Stopped as e:
            raise Refused(
                f"stopped after {e.done} of {e.of} checks; the same command with -o {folder} continues the audit"
            ) from None
    end(report, folder, run)
