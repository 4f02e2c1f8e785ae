"""How a verb is listed, and its usage line: arguments as their metavars spell them, without further brackets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer.core


class Verb(typer.core.TyperCommand):
    """A command whose metavars are whole: "[MODEL] PICTURE..." for words that are told apart later."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [p.metavar for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return [self.options_metavar or "", *(metavar for metavar in arguments if metavar)]


def first_paragraph(verb: Callable[..., None]) -> str:
    """The summary of a verb, for the list of commands, which else cuts it off."""
    return " ".join((verb.__doc__ or "").partition("\n\n")[0].split())
