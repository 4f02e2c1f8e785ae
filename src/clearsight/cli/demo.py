"""clearsight demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clearsight.cli.options import Out, RunOptions, Seeded, grouped
from clearsight.cli.output import sayer, tell
from clearsight.errors import Refused

_WHATS = ("shortcut", "detection")


@grouped
def demo(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="shortcut: a model that is right for the wrong reason. detection: from windows to one shot.",
        ),
    ],
    picture: Annotated[
        str | None, typer.Option(help="detection: a picture, or demo:NAME.", show_default="demo:coffee")
    ] = None,
    proposals: Annotated[
        int | None, typer.Option(min=1, help="detection: how many boxes are proposed.", show_default="100")
    ] = None,
    out: Out = None,
    *,
    run: Seeded,
) -> None:
    """Show without any data of yours what an audit finds, or how detectors came to be: shortcut, detection.

    shortcut: one recipe is trained on digits with a mark that gives the class away, and on the same digits without it.
    Both models are right on nearly all test pictures of their kind; the audits say which of them looks at the mark. A
    box around the marks then mends that model, and the same pictures show it.

    detection: the embedded classifier finds objects in one picture as R-CNN and its successors do: by a sliding window,
    by proposals that are cropped or pooled, by a network that proposes, and in one shot. One page shows the boxes, and
    what each way costs in passes and seconds.
    """
    from clearsight.errors import nearest

    if what not in _WHATS:
        raise Refused(f"demo {what!r}: {nearest(what, _WHATS)}")
    if what == "detection":
        _detection(out, picture, proposals, run)
    elif picture is not None or proposals is not None:
        raise Refused("demo shortcut takes no --picture and no --proposals: they belong to demo detection")
    else:
        _shortcut(out, run)


def _shortcut(out: Path | None, run: RunOptions) -> None:
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.demos.shortcut import shortcut

    with new_run("demo", out, holds="audit-marked") as folder, progress(run.silent) as report_progress:
        story = shortcut(folder, seed=run.seed, progress=report_progress, say=sayer(run.silent))
    tell(story.as_dict(), story.lines(), run)


def _detection(out: Path | None, picture: str | None, proposals: int | None, run: RunOptions) -> None:
    from clearsight.core.run_names import new_run
    from clearsight.demos.detection import PICTURE, PROPOSALS, detection

    with new_run("demo", out, holds="index.html") as folder:
        lesson = detection(
            folder,
            picture=PICTURE if picture is None else picture,
            proposals=PROPOSALS if proposals is None else proposals,
            seed=run.seed,
            say=sayer(run.silent),
        )
    tell(lesson.as_dict(), lesson.lines(), run)
