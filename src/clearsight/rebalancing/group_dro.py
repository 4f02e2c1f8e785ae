"""Sagawa, Koh, Hashimoto & Liang 2020, arXiv:1911.08731, algorithm 1."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused


def _validate(*, step_size: float) -> None:
    if not step_size > 0:
        raise Refused(f"group-dro(step_size={step_size:g}): a number above 0")


@method(paper="arXiv:1911.08731", validate=_validate)
def group_dro(
    step: TrainingStep, x: Tensor, y: Tensor, group: Tensor, groups: int, *, step_size: float = 0.01
) -> Tensor:
    """Group distributionally robust optimisation: train on the groups that have the greatest loss.

    x (B, C, *S) in [0, 1], y (B, K) shares of the classes, group (B,) from 0 to groups - 1 -> (B,) losses.  Their mean
    is the sum over groups of q times the mean loss of the group's pictures in the batch.  q, one weight for each group
    and 1 in all, is kept from step to step in ``step.memory["q"]``: it begins even, and before each step the q of a
    group grows by the factor exp(step_size * loss of the group).

    Args:
        step_size: how fast the weights follow the losses, above 0; the paper takes 0.01.

    Refused: a step size that is not above 0.

    Source: Sagawa et al. 2020, algorithm 1.  There a step takes one picture of one group, here a batch that has all
    groups equally often; a group that is not in the batch keeps its weight before the weights are divided by their sum.

    Two pictures of two groups, one right at odds of 3 and one wrong at odds of 3, have losses log(4 / 3) and log 4:

    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[1.0], [0.0]]))
    >>> x, y = torch.tensor([[[[3.0]]], [[[1 / 3]]]]).log(), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> losses = group_dro(step, x, y, torch.tensor([0, 1]), 2, step_size=1.0)
    >>> step.memory["q"]  # in proportion to 4 / 3 and 4
    tensor([0.2500, 0.7500])
    >>> torch.allclose(losses.mean(), 0.25 * torch.tensor(4 / 3).log() + 0.75 * torch.tensor(4.0).log())
    True
    """
    losses = step.cross_entropy(step.forward(x), y)
    members = torch.nn.functional.one_hot(group, groups).to(losses)
    count = members.sum(0)
    mean = (members * losses.detach()[:, None]).sum(0) / count.clamp_min(1)
    q = step.memory.get("q", torch.full((groups,), 1 / groups)).to(losses)
    q = q * (step_size * mean).exp()
    q = q / q.sum()
    step.memory["q"] = q
    return losses * (q / count.clamp_min(1))[group] * len(losses)
