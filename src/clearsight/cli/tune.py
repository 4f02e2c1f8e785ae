"""clearsight tune."""

from __future__ import annotations

from typing import Annotated

import typer

from clearsight.cli.inputs import look_first
from clearsight.cli.options import LabelColumn, MarksColumn, Out, Placed, TextColumn, Workers, grouped
from clearsight.cli.output import sayer, tell
from clearsight.cli.train import TrainingData, training_pictures
from clearsight.core.memory import ALL, reuse_memory
from clearsight.errors import Refused
from clearsight.training.recipe import Recipe


@grouped
def tune(
    data: TrainingData,
    space: Annotated[
        str | None, typer.Option(help='Settings to search: "lr=log(1e-4, 1e-2); batch=16|32; decay=uniform(0, 0.1)".')
    ] = None,
    search: Annotated[str, typer.Option(help="random, grid, or asha, which stops bad trials early.")] = "asha",
    trials: Annotated[int, typer.Option(min=1, help="Maximum number of trials.")] = 12,
    at_once: Annotated[int, typer.Option(min=1, help="Number of trials that run at the same time.")] = 1,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search in -o DIR.")] = False,
    label_column: LabelColumn = None,
    text_column: TextColumn = None,
    marks_column: MarksColumn = None,
    workers: Workers = 0,
    *,
    run: Placed,
    recipe: Recipe,
) -> None:
    """Search for good settings of train with Ray Tune (extra ray), and train the best to its end.

    Trials are compared on val; only the best one is judged on test. The options of train apply to every trial. Ray runs
    on this machine, or on the cluster that RAY_ADDRESS names.
    """
    look_first([], [data])
    reuse_memory(ALL)
    from clearsight.cli.progress import progress
    from clearsight.training.search_space import DEFAULT
    from clearsight.training.tune import tune as search_settings

    pictures = training_pictures(data, label_column, text_column, marks_column)
    with progress(run.silent, pictures.thing) as report_progress:
        try:
            tuned = search_settings(
                pictures,
                recipe,
                space or DEFAULT,
                out,
                search=search,  # type: ignore[arg-type]
                trials=trials,
                at_once=at_once,
                resume=resume,
                device=run.device,
                workers=workers,
                progress=report_progress,
                say=sayer(run.silent),
            )
        except KeyboardInterrupt:
            where = f"-o {out}" if out else "-o and its folder"
            raise Refused(f"stopped; the same command with {where} --resume continues the search") from None
    tell(tuned.as_dict(), tuned.lines(), run)
