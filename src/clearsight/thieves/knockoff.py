"""Orekondy, Schiele & Fritz 2019, arXiv:1812.02766: knockoff nets."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.theft import Theft


@method(paper="arXiv:1812.02766", claims="one-round", order=1)
def knockoff(theft: Theft, n: int) -> Tensor:
    """Ask about pictures drawn at random from a pool, whatever they show.

    Of the pool (P, C, *S) in [0, 1] n pictures (n, C, *S), fewer where it holds no more.  The pool needs no labels and
    no likeness to the pictures that the model was trained on, though a thief gets further with those.

    Source: Orekondy et al. 2019, the strategy random.

    >>> import torch
    >>> from clearsight.testing import theft
    >>> knockoff(theft(torch.arange(6).reshape(6, 1, 1, 1) / 6), 4).flatten().unique().numel()
    4
    """
    return theft.take(theft.drawn(n, len(theft.pool)))
