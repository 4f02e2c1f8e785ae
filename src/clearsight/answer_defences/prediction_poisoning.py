"""Orekondy, Schiele & Fritz 2020, arXiv:1906.10908: prediction poisoning (MAD)."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.answering import Request
from clearsight.core.catalogue import method
from clearsight.errors import Refused

_SHORT = 1 - 1e-3  # of the way to where the top class would no longer be alone at the top


def _validate(*, l1: float, **others: object) -> None:
    if not 0 <= l1 <= 2:
        raise Refused(f"prediction-poisoning(l1={l1:g})", "give a distance from 0 to 2, the largest of two answers")


@method(paper="arXiv:1906.10908", claims="sums-to-one", validate=_validate)
def prediction_poisoning(request: Request, p: Tensor, *, l1: float = 0.5, keep_top: bool = False) -> Tensor:
    """Maximise the angle by which the gradient is wrong of a thief who learns from the answer (MAD).

    p (B, K) -> (B, K), (1 - a) p + a e, where e is the answer of one class alone, and a is as large as the distance
    allows.  Of the K classes e is the one for which the step of a thief who learns from the answer points most wrongly.
    The thief is stood for, as in the paper, by a surrogate that was not trained, and here of that by its last layer
    alone: the gradient for an answer y is (y - 1/K) times the features, whatever they are, so that no picture and no
    pass is needed.  As in the paper this is a heuristic, and not the best of all answers at that distance.

    Args:
        l1: largest L1 distance of an answer from the true one, 0 to 2.
        keep_top: whether the top class must stay the top class, as in the paper's MAD-argmax.

    Refused: a distance below 0 or above 2.

    Source: Orekondy et al. 2020, the objective MAD and its heuristic: an extreme point, then a line towards it.

    >>> prediction_poisoning(Request(torch.zeros(1, 1, 1, 1)), torch.tensor([[0.75, 0.25]]), l1=0.75)
    tensor([[0.3750, 0.6250]])
    """
    y = p.double()
    y = y / y.sum(1, keepdim=True).clamp_min(1e-12)
    share = (l1 / (2 * (1 - y)).clamp_min(1e-12)).clamp_max(1)  # (B, K), of each class
    if keep_top:
        gap = y.amax(1, keepdim=True) - y
        share = torch.minimum(share, torch.where(gap > 0, gap / (1 + gap) * _SHORT, 0.0))
    k = _cosine(y, share).argmin(1, keepdim=True)
    pole = torch.zeros_like(y).scatter(1, k, 1.0)
    moved = torch.lerp(y, pole, share.gather(1, k))
    even = y.amax(1, keepdim=True) == y.amin(1, keepdim=True)  # there the surrogate has no gradient to be turned
    return torch.where(even, y, moved).to(p)


def _cosine(y: Tensor, share: Tensor) -> Tensor:
    """The cosine (B, K) between the gradients for y and for y with that share of each one class in it."""
    classes = y.shape[1]
    d = y - 1 / classes
    squared = d.square().sum(1, keepdim=True)
    along = (1 - share) * squared + share * d
    length = (1 - share).square() * squared + 2 * share * (1 - share) * d + share.square() * (1 - 1 / classes)
    return torch.where(length > 1e-18, along / (squared * length).clamp_min(1e-30).sqrt(), 1.0)
