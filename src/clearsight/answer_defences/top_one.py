"""Tramèr, Zhang, Juels, Reiter & Ristenpart 2016, arXiv:1609.02943, section 6."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.answering import Request
from clearsight.core.catalogue import method


@method(paper="arXiv:1609.02943", claims="keeps-top sums-to-one", name="top-1")
def top_one(request: Request, p: Tensor) -> Tensor:
    """Answer with the top class alone, without its probability.

    p (B, K) -> (B, K), 1 for the top class and 0 for all others.  Where two are equal it is the first.

    Source: Tramèr et al. 2016, section 6: what is left to a thief is class labels.

    >>> top_one(Request(torch.zeros(1, 1, 1, 1)), torch.tensor([[0.2, 0.7, 0.1]])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    return torch.zeros_like(p).scatter(1, p.argmax(1, keepdim=True), 1.0)
