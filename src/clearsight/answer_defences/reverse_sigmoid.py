"""Lee, Edwards, Molloy & Su 2019, arXiv:1806.00054: the reverse sigmoid perturbation."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.answering import Request
from clearsight.core.catalogue import method
from clearsight.errors import Refused

_NEAR = 1e-7  # of 0 and 1, where the logit is infinite


def _validate(*, beta: float, gamma: float) -> None:
    if beta < 0 or gamma <= 0:
        raise Refused(f"reverse-sigmoid(beta={beta:g}, gamma={gamma:g})", "give a beta from 0 and a gamma above 0")


@method(paper="arXiv:1806.00054", claims="sums-to-one", validate=_validate)
def reverse_sigmoid(request: Request, p: Tensor, *, beta: float = 1.0, gamma: float = 0.2) -> Tensor:
    """Take a reversed sigmoid off each probability, so that several different probabilities give one answer.

    p (B, K) -> (B, K), alpha (p - beta (s(gamma s^-1(p)) - 1/2)) with the sigmoid s, cut to 0 and more; alpha makes the
    sum 1.  What is near 0 is raised and what is near 1 is lowered, so a thief who learns from the probabilities learns
    a wrong slope.  With the defaults the top class stays the top class where its probability is above a half; below
    that it may change, because a class of almost no probability is answered with nearly a half.  A thief who learns
    from the top class alone loses little.

    Args:
        beta: how much of the reversed sigmoid is taken off, from 0, which changes nothing.
        gamma: slope of the reversed sigmoid, above 0: the smaller, the less probabilities near a half are changed.

    Refused: a beta below 0, and a gamma of 0 or less.

    Source: Lee et al. 2019, the reverse sigmoid perturbation with its beta and gamma.

    With gamma 1 the reversed sigmoid is p itself, and with beta 1 a half is left of each:

    >>> reverse_sigmoid(Request(torch.zeros(1, 1, 1, 1)), torch.tensor([[0.9, 0.1]]), beta=1.0, gamma=1.0)
    tensor([[0.5000, 0.5000]])
    """
    logit = p.double().clamp(_NEAR, 1 - _NEAR).logit()
    moved = (p - beta * ((gamma * logit).sigmoid() - 0.5)).clamp_min(0)
    total = moved.sum(1, keepdim=True)
    return torch.where(total > 0, moved / total.clamp_min(1e-12), p.double()).to(p)
