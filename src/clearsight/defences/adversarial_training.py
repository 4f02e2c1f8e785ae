"""Madry et al. 2018, arXiv:1706.06083, equation 2.1."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.targets import label_goal
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused


@method(paper="arXiv:1706.06083")
def adversarial_training(step: TrainingStep, x: Tensor, y: Tensor, *, clean: float = 0.0) -> Tensor:
    """Train on the pictures as the attack changes them, instead of the pictures themselves.

    x (B, C, *S) in [0, 1], y (B, K) shares of the classes -> (B,) losses.

    Args:
        clean: share of the loss that is that of the clean pictures, 0 to 1; each share above 0 costs a pass more.

    Refused: a share outside its range.

    Source: Madry et al. 2018, equation 2.1: the minimum over weights of the mean of the worst loss in the budget.
    Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572, section 6, mix in half of the clean loss.

    >>> import torch
    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]), "fgsm", eps=0.25)
    >>> x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[1.0, 0.0]])
    >>> step.model(step.attack(x, label_goal(y)))[0, 0].item()  # 3 * 0.25 - 2 * 0.75
    -0.75
    >>> torch.isclose(adversarial_training(step, x, y), torch.tensor(0.75).exp().log1p()).item()
    True
    """
    if not 0 <= clean <= 1:
        raise Refused(f"adversarial-training(clean={clean:g}): a share from 0 to 1")
    loss = step.cross_entropy(step.model(step.attack(x, label_goal(y))), y)
    return loss if clean == 0 else (1 - clean) * loss + clean * step.cross_entropy(step.model(x), y)
