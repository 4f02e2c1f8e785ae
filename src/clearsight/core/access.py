"""What a model behind a service tells of its scores: all probabilities, rounded ones, a few of them, or the label."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from clearsight.errors import Refused


def classes_told(access: str, digits: int | None) -> int | None:
    """How many of the classes the model's answer contains, None for all.  Refused: an unknown access, and its digits.

    >>> classes_told("top-5", 2), classes_told("probs", None)
    (5, None)
    """
    match = re.fullmatch(r"top-([1-9]\d*)", access)
    if not match and access not in ("logits", "probs", "label"):
        raise Refused(f"access {access!r}: give what the model returns, logits, probs, label or top-5")
    if digits is not None and (digits < 1 or access in ("logits", "label")):
        raise Refused(f"digits={digits}: give at least 1, and only with probabilities (access probs or top-5)")
    return int(match[1]) if match else None


def told(p: Tensor, order: Tensor, top: int | None, digits: int | None) -> Tensor:
    """Probabilities p (n, K) as far as they are told, and what can be guessed of the others: (n, K).

    order (n, K): scores by which the classes are ranked; they tell probabilities apart that rounding makes equal.  top:
    how many of the classes are told, None for all.  The others share what is missing to 1 equally, but none gets more
    than the least that is told.  digits: decimals that are told, None for all.

    >>> told(torch.tensor([[0.5, 0.3, 0.1, 0.1]]), torch.tensor([[4.0, 3.0, 2.0, 1.0]]), 1, None).tolist()
    [[0.5, 0.1666666716337204, 0.1666666716337204, 0.1666666716337204]]
    """
    if digits is not None:
        p = p.round(decimals=digits)
    if top is None or top >= p.shape[1]:
        return p
    best = order.topk(top).indices
    shown = torch.zeros_like(p, dtype=torch.bool).scatter(1, best, True)
    hidden = (1 - (p * shown).sum(1)).clamp_min(0) / (p.shape[1] - top)
    hidden = torch.minimum(hidden, p.gather(1, best).amin(1))
    return torch.where(shown, p, hidden[:, None])
