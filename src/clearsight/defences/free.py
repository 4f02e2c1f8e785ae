"""Shafahi et al. 2019, arXiv:1904.12843, algorithm 1."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.norms import Measure, per_picture, perturbation_norm, steepest
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.internals.input_convolution import folded_back


@method(paper="arXiv:1904.12843", claims="remembers adds-to-pixels")
def free(step: TrainingStep, x: Tensor, y: Tensor, *, replays: int = 8) -> Tensor:
    """Adversarial training for free: the pass that trains the weights also moves the perturbation.

    x (B, C, *S) in [0, 1], y (B, K) shares of the classes -> (B,), the cross entropy of x + delta, brought into [0, 1].
    When the gradient comes back, delta takes a step of eps along it and stays within eps of 0.  delta begins at 0 and
    goes on from each batch to the next one, its rows in the order of the batch.  The attack is not run: of it only the
    budget is used.  A replay costs one pass forwards and one back, which goes on to the pixels, so that 1 / replays of
    the epochs take little longer than plain training.

    Args:
        replays: number of steps in a row on the same batch, from 1.

    Refused: fewer than one replay.

    Source: Shafahi et al. 2019, algorithm 1.  In Linf the step is the sign of the gradient, in L2 the gradient divided
    by its length.

    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]), "fgsm", eps=0.25)
    >>> x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[1.0, 0.0]])
    >>> losses = [free(step, x, y), free(step, x, y)]
    >>> losses[0].sum().backward()
    >>> step.memory["delta"].tolist()
    [[[[-0.25, 0.25]]]]
    >>> losses.append(free(step, x, y))
    >>> torch.allclose(torch.cat(losses), -torch.tensor([0.5, 0.5, -0.75]).sigmoid().log())
    True
    """
    if replays < 1:
        raise Refused(f"free(replays={replays}): from 1")
    rows = len(x)
    delta = _filled(step.memory.get("delta"), x)
    moved = (x + delta[:rows]).clamp(0, 1).detach().requires_grad_()

    def move(gradient: Tensor) -> None:
        ahead = delta[:rows] + step.eps * steepest(gradient.detach(), step.norm)
        step.memory["delta"] = torch.cat([_shortened(ahead, step.eps, step.norm), delta[rows:]])

    moved.register_hook(move)  # type: ignore[no-untyped-call]
    with folded_back(step.model.net):
        return step.cross_entropy(step.model(moved), y)


def _filled(delta: Tensor | None, x: Tensor) -> Tensor:
    """The perturbation of before, with rows of 0 where it has fewer than there are pictures x (B, C, *S)."""
    if delta is None:
        return torch.zeros_like(x)
    delta = delta.to(x)
    return torch.cat([delta, x.new_zeros(max(0, len(x) - len(delta)), *x.shape[1:])])


def _shortened(delta: Tensor, eps: float, norm: Measure) -> Tensor:
    """The nearest perturbation (B, ...) of at most this size."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    length = per_picture(perturbation_norm(delta, norm), delta).clamp_min(torch.finfo(delta.dtype).tiny)
    return delta * (eps / length).clamp(max=1)
