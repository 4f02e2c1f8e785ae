"""Which kinds of model a method takes."""

from __future__ import annotations

import re
from functools import cache

from clearsight.core.methods import Method

KINDS = ("classifier", "detector", "segmenter")


def takes_kind(method: Method, kind: str) -> bool:
    """Whether a method takes models of a kind, as its first parameter is annotated: a `Model` is every kind.

    >>> from clearsight.core.catalogue import catalogue
    >>> [takes_kind(catalogue("explainers")["cam"], kind) for kind in ("classifier", "detector")]
    [True, False]
    """
    named = _named(method.takes)
    return not named or kind in named


@cache
def _named(takes: str) -> list[str]:
    return [word for word in re.findall(r"\w+", takes.lower()) if word in KINDS]
