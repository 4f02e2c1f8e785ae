"""Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918, section 3.3."""

from __future__ import annotations

from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.defences.common.factors import check_factor


@method(paper="arXiv:1902.02918", claims="attack-free adds-to-pixels")
def gaussian_augmentation(step: TrainingStep, x: Tensor, y: Tensor, *, sigma: float = 0.25) -> Tensor:
    """Train under the noise of randomised smoothing, so that the smoothed classifier is right.  It needs no attack.

    x (B, C, *S) in [0, 1], y (B, K) shares of the classes -> (B,), the cross entropy of x plus normal noise.  The noise
    is drawn anew in every step and leaves [0, 1], as that of the smoothed classifier does.

    Args:
        sigma: standard deviation of the noise, in pixels in [0, 1], from 0; that of the smoothing.

    Refused: a sigma below 0.

    Source: Cohen, Rosenfeld & Kolter 2019, section 3.3.

    >>> import torch
    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]))
    >>> x, y = torch.tensor([[[[0.5, 0.5]]]]).expand(20000, 1, 1, 2), torch.tensor([[1.0, 0.0]]).expand(20000, 2)
    >>> _ = torch.manual_seed(0)
    >>> right = gaussian_augmentation(step, x, y).neg().exp()
    >>> margins = right.logit()  # normal: mean 3/2 - 2/2, std sqrt(3 * 3 + 2 * 2) / 4
    >>> round(margins.mean().item(), 1), round(margins.std().item(), 1)
    (0.5, 0.9)
    """
    check_factor("gaussian-augmentation", "sigma", sigma)
    return step.cross_entropy(step.model(x + sigma * rng.normal(x)), y)
