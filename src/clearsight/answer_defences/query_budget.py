"""Tramèr, Zhang, Juels, Reiter & Ristenpart 2016, arXiv:1609.02943: theft costs queries, which a provider can count."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.answering import Request, Withheld
from clearsight.core.catalogue import method
from clearsight.core.text import counted
from clearsight.errors import Refused


def _validate(*, queries: int) -> None:
    if queries < 1:
        raise Refused(f"query-budget(queries={queries})", "give at least 1")


@method(paper="arXiv:1609.02943", claims="keeps-top sums-to-one remembers", validate=_validate)
def query_budget(request: Request, p: Tensor, *, queries: int = 10000) -> Tensor:
    """Answer so many pictures of an account, and no more.

    p (B, K) -> (B, K) as it is.  A request of more pictures than are left is withheld whole, and none of them is
    counted.

    Args:
        queries: number of pictures that an account may ask about, at least 1.

    Refused: fewer than 1, and (Withheld) a request of more pictures than are left.

    Source: Tramèr et al. 2016, section 3: the cost of a theft is counted in queries.

    >>> import torch
    >>> account = Request(torch.zeros(2, 1, 1, 1))
    >>> _ = query_budget(account, torch.ones(2, 1), queries=3)
    >>> account.memory
    {'used': 2}
    """
    used = request.memory.get("used", 0)
    if used + len(p) > queries:
        left = queries - used
        raise Withheld(
            "query-budget",
            f"this account may ask about {counted(queries, 'picture')} and has {left} left, the request has {len(p)}",
            "ask about fewer, or ask whoever serves the model for more" if left else "ask whoever serves the model",
        )
    request.memory["used"] = used + len(p)
    return p
