"""Candidates (B, N, 5 + classes): their boxes, and logits whose sigmoid is the score that a family means."""

import torch
import torch.nn.functional as F
from torch import Tensor

CERTAIN = 50.0  # the logit of objectness in families without one
ABSENT = -50.0  # both logits of a row without meaning


def candidates(boxes: Tensor, objectness: Tensor, classes: Tensor) -> Tensor:
    """Boxes (B, N, 4), logits of objectness (B, N, 1) and of classes (B, N, K) -> (B, N, 5 + K)."""
    return torch.cat([boxes, objectness, classes], 2)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes (..., 4) without what lies outside the picture.

    >>> clip(torch.tensor([-3.0, 2.0, 12.0, 30.0]), 20, 10).tolist()
    [0.0, 2.0, 10.0, 20.0]
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], -1
    )  # fmt: skip


def of_softmax(z: Tensor) -> Tensor:
    """Logits z (..., K) of a softmax -> logits (..., K) whose sigmoid is the softmax probability.

    Of class c that is z_c minus the logarithm of the sum of the exponentials of all others, in memory (..., K).

    >>> of_softmax(torch.tensor([0.0, 0.0, 0.0])).sigmoid()
    tensor([0.3333, 0.3333, 0.3333])
    """
    best = torch.zeros_like(z, dtype=torch.bool).scatter(-1, z.argmax(-1, keepdim=True), True)
    whole = z.logsumexp(-1, keepdim=True)
    without_best = z.masked_fill(best, -torch.inf).logsumexp(-1, keepdim=True)
    # a class that is not the best has a share of at most 1/2, so that what it leaves is no difference of equal numbers
    share = (z - whole).exp().masked_fill(best, 0)
    return z - torch.where(best, without_best, whole + (-share).log1p())


def of_root(z: Tensor) -> Tensor:
    """A logit z -> the logit of the square root of its probability.

    >>> of_root(torch.tensor(0.25).logit()).sigmoid()
    tensor(0.5000)
    """
    half = F.logsigmoid(z.clamp(max=80)) / 2  # above 80 the root of p is 1 in single precision
    return half - (-half.expm1()).log()
