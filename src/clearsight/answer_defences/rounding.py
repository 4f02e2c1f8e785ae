"""Tramèr, Zhang, Juels, Reiter & Ristenpart 2016, arXiv:1609.02943, section 7."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.answering import Request
from clearsight.core.catalogue import method
from clearsight.errors import Refused


def _validate(*, digits: int) -> None:
    if not 1 <= digits <= 15:
        raise Refused(f"rounding(digits={digits})", "give 1 to 15 decimals")


@method(paper="arXiv:1609.02943", validate=_validate)
def rounding(request: Request, p: Tensor, *, digits: int = 2) -> Tensor:
    """Answer with probabilities rounded to a few decimals.

    p (B, K) -> (B, K), each probability rounded to the nearest, half to even.  The rounded ones need not sum to 1, and
    classes that were nearly equal become equal: the first of them is then the top class.

    Args:
        digits: decimals that are kept, 1 to 15.

    Refused: other numbers of decimals.

    Source: Tramèr et al. 2016, section 7, "rounding confidences".

    >>> import torch
    >>> rounding(Request(torch.zeros(1, 1, 1, 1)), torch.tensor([[0.127, 0.873]]), digits=2)
    tensor([[0.1300, 0.8700]])
    """
    return p.round(decimals=digits)
