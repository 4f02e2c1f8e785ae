"""clearsight demo."""

from __future__ import annotations

from typing import Annotated

import typer

from clearsight.cli.options import Out, Seeded, grouped
from clearsight.cli.output import sayer, tell
from clearsight.errors import Refused


@grouped
def demo(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="shortcut: a model that is right for the wrong reason.")],
    out: Out = None,
    *,
    run: Seeded,
) -> None:
    """Show on digits that come with scikit-learn what an audit finds: shortcut.

    One recipe is trained on digits with a mark that gives the class away, and on the same digits without it. Both
    models are right on nearly all test pictures of their kind; the audits say which of them looks at the mark. A box
    around the marks then mends that model, and the same pictures show it.
    """
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.demos.shortcut import shortcut
    from clearsight.errors import nearest

    if what != "shortcut":
        raise Refused(f"demo {what!r}: {nearest(what, ['shortcut'])}")
    with new_run("demo", out, holds="audit-marked") as folder, progress(run.silent) as report_progress:
        story = shortcut(folder, seed=run.seed, progress=report_progress, say=sayer(run.silent))
    tell(story.as_dict(), story.lines(), run)
