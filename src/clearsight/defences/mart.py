"""Wang et al. 2020, openreview:rklOg6EFwS (ICLR), "Improving adversarial robustness requires revisiting [...]"."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.targets import label_goal
from clearsight.core.training_step import TrainingStep
from clearsight.defences.common.divergence import divergence
from clearsight.defences.common.factors import check_factor

ABOVE = 1.0001  # in place of 1, so that a wrong class of probability 1 has a finite loss, as in the authors' code


@method(paper="openreview:rklOg6EFwS")
def mart(step: TrainingStep, x: Tensor, y: Tensor, *, beta: float = 5.0) -> Tensor:
    """Misclassification-aware training: a picture that is wrong before the attack must above all answer the same.

    x (B, C, *S) in [0, 1], y (B, K) shares of the classes -> (B,), of the attacked picture x' the cross entropy less
    the logarithm of 1 - the largest probability of a wrong class, plus beta times KL(p(x) || p(x')) times the
    probability that the clean picture gives to the wrong classes.  It costs a training pass more than
    adversarial-training.

    Args:
        beta: weight of the divergence, lambda of the paper, from 0; 5 is the authors' choice.

    Refused: a beta below 0.

    Source: Wang et al. 2020, section 3: boosted cross entropy and weighted divergence.  Classes with a share are right;
    label smoothing and class weights change the cross entropy alone.

    >>> import torch
    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]), "fgsm", eps=0.25)
    >>> x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[1.0, 0.0]])
    >>> p, q = torch.tensor(0.5).sigmoid(), torch.tensor(-0.75).sigmoid()  # the right class before, and after
    >>> kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    >>> torch.isclose(mart(step, x, y), -q.log() - (1.0001 - (1 - q)).log() + 5 * kl * (1 - p)).item()
    True
    """
    check_factor("mart", "beta", beta)
    moved = step.attack(x, label_goal(y))
    clean, attacked = step.forward(x), step.model(moved)
    wrong = attacked.softmax(1).masked_fill(y > 0, 0.0).amax(1)
    boosted = step.cross_entropy(attacked, y) - (ABOVE - wrong).log()
    right = (clean.softmax(1) * (y > 0)).sum(1)
    return boosted + beta * divergence(clean, attacked) * (1 - right)
