"""Zhang et al. 2019, arXiv:1901.08573, equation 5."""

from __future__ import annotations

from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.norms import project
from clearsight.core.training_step import TrainingStep
from clearsight.defences.common.divergence import Diverge, divergence
from clearsight.defences.common.factors import check_factor

NOISE = 0.001  # at the picture itself the divergence has no slope


@method(paper="arXiv:1901.08573", claims="adds-to-pixels")
def trades(step: TrainingStep, x: Tensor, y: Tensor, *, beta: float = 6.0) -> Tensor:
    """Trade accuracy for robustness: be right on the picture, and answer the same wherever the attack moves it.

    x (B, C, *S) in [0, 1], y (B, K) shares of the classes -> (B,), the cross entropy of the clean picture plus beta
    times the divergence KL(p(x) || p(x')).  The attack begins near the picture, at x + 0.001 times normal noise, and
    looks for the x' within its budget of x at which that divergence is largest.  It costs a forward pass and a training
    pass more than adversarial-training.

    Args:
        beta: weight of the divergence, 1 / lambda of the paper, from 0: the larger, the more robust, and the less often
            right on clean pictures.

    Refused: a beta below 0.

    Source: Zhang et al. 2019, equation 5 and algorithm 1; beta = 6 is one of the two values of its experiments.

    With fgsm on a linear network, the picture ends up at one of two corners of the budget, or as far from it as noise
    took it the other way:

    >>> import torch
    >>> from clearsight.testing import linear, training_step
    >>> _ = torch.manual_seed(0)
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]), "fgsm", eps=0.25)
    >>> x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[1.0, 0.0]])
    >>> p, corners = torch.tensor(0.5).sigmoid(), torch.tensor([0.5 - 1.25, 0.5 + 1.25]).sigmoid()
    >>> kl = p * (p / corners).log() + (1 - p) * ((1 - p) / (1 - corners)).log()
    >>> torch.isclose(trades(step, x, y), -p.log() + 6 * kl).any().item()
    True
    """
    check_factor("trades", "beta", beta)
    near = project(x + NOISE * rng.normal(x), x, step.eps, step.norm)
    moved = project(step.attack(near, Diverge(step.evaluated(x))), x, step.eps, step.norm)
    clean = step.forward(x)
    return step.cross_entropy(clean, y) + beta * divergence(clean, step.model(moved))
