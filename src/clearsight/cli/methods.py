"""clearsight methods."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearsight.cli.options import RunOptions, Take, grouped


@grouped
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[METHOD]", help="Name of a method, which is then described in full.")
    ] = None,
    *,
    run: Annotated[RunOptions, Take("json")],
) -> None:
    """List every explainer, attack, metric, check, feature, augmentation and network, with its options and paper."""
    from clearsight.reporting.method_pages import listing, one, print_listing

    if run.json:
        print(json.dumps(listing(name), indent=1, ensure_ascii=False))
    elif name:
        print(one(name))
    else:
        from rich.console import Console

        print_listing(Console())
