"""What segmenters are trained with: losses of logits at pixels, with pixels that are not judged left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.errors import Refused

NOT_JUDGED = 255


def cross_entropy(logits: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over the judged pixels of the cross entropy: logits (B, K, H, W), truth (B, H, W) int64 -> ().

    Pixels of truth 255 are not judged.  A batch with none that is judged gives 0, with zero gradients, where torch
    gives not a number.  weight (K,): of each class, at least 0; the mean is then weighted by the class of each pixel.

    Refused: shapes that do not fit, and classes beyond K that are not 255.

    >>> truth = torch.tensor([[[1, 255]]])
    >>> cross_entropy(torch.zeros(1, 4, 1, 2), truth).exp()
    tensor(4.)
    """
    _check(logits, truth, weight)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    total = F.cross_entropy(logits, truth, weight, ignore_index=NOT_JUDGED, reduction="sum")
    judged = truth[truth != NOT_JUDGED]
    mass = judged.numel() if weight is None else float(weight[judged].sum())
    return total / mass if mass else logits.sum() * 0


def dice(logits: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """One minus the mean of the classes' soft Dice overlaps: logits (B, K, H, W), truth (B, H, W) int64 -> ().

    With the probability p of a class and its truth t (0 or 1) at each judged pixel of the whole batch, its overlap is
    2 sum(p t) / (sum(p) + sum(t)).  The mean is over the classes that the truth has, because the overlap of the others
    is 0 whatever p is.  Pixels of truth 255 are not judged; a batch with none that is judged gives 0, with zero
    gradients.  weight (K,): of each class in the mean.

    Refused: shapes that do not fit, and classes beyond K that are not 255.

    Source: Drozdzal, Vorontsov, Chartrand, Kadoury & Pal 2016, arXiv:1608.04117.

    >>> truth = torch.tensor([[[1, 255]]])
    >>> dice(torch.zeros(1, 4, 1, 2), truth)  # of class 1: 1 - 2 * 0.25 / (0.25 + 1)
    tensor(0.6000)
    """
    _check(logits, truth, weight)
    judged = truth != NOT_JUDGED
    p = logits.float().softmax(1).movedim(1, -1)[judged]
    t = F.one_hot(truth[judged], logits.shape[1]).to(p)
    size = t.sum(0)
    overlap = 2 * (p * t).sum(0) / (p.sum(0) + size).clamp(min=1e-30)  # of a class that is nowhere, 0 / 0
    w = (size > 0).to(p) * (1 if weight is None else weight)
    mass = w.sum()
    return (w * (1 - overlap)).sum() / mass if mass else logits.sum() * 0


def _check(logits: Tensor, truth: Tensor, weight: Tensor | None) -> None:
    if logits.ndim != 4 or truth.shape != (logits.shape[0], *logits.shape[2:]):
        raise Refused(
            f"logits of shape {tuple(logits.shape)} with a truth of shape {tuple(truth.shape)}: give (B, K, H, W) and "
            "(B, H, W); enlarge the logits to the pictures first"
        )
    if weight is not None and (weight.shape != logits.shape[1:2] or bool((weight < 0).any())):
        raise Refused(
            f"weights of shape {tuple(weight.shape)}: give one for each of {logits.shape[1]} classes, at least 0"
        )
    wrong = truth[((truth < 0) | (truth >= logits.shape[1])) & (truth != NOT_JUDGED)]
    if wrong.numel():
        raise Refused(
            f"the truth has class {int(wrong[0])}, but the logits have {logits.shape[1]} classes from 0 on: number the "
            "classes so, and give 255 where a pixel is not judged"
        )
