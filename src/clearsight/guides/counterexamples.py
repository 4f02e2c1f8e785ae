"""Teso & Kersting 2019, arXiv:1805.08578, section 4: explanatory interactive learning by counterexamples."""

from __future__ import annotations

from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.running_statistics import statistics_held
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused


@method(paper="arXiv:1805.08578", claims="mixes")
def counterexamples(step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor, *, weight: float = 1.0) -> Tensor:
    """The answer must be right when what lies outside the annotation comes from another picture.

    x (B, C, *S) in [0, 1], inside (B, 1, *S), 1 where the answer may look -> (B,), weight times the cross entropy of
    the label for the picture inside and another picture of the batch outside.  A batch of one is its own other picture.

    It changes behaviour, not gradients: a network cannot pass it by hiding what it looks at from an explainer.  It
    costs a pass more; running averages see the pictures alone.  A picture that has nothing inside, because its mask is
    empty or was cropped away, adds nothing: the other picture alone has another label.

    Args:
        weight: factor of the loss, from 0.

    Refused: a weight below 0.

    Source: Teso & Kersting 2019, section 4: each counterexample has the label of its picture, and the components that
    the explanation named in error are randomised; here by what they are in another picture.

    >>> import torch
    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[1.0, 5.0], [0.0, 0.0]]))
    >>> x = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])
    >>> y, inside = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[[[1.0, 0.0]]]]).repeat(2, 1, 1, 1)
    >>> swapped = torch.tensor([6.0, 0.0])  # the logits of class 0 for (1, 1) and (0, 0)
    >>> torch.allclose(counterexamples(step, x, y, inside), (swapped * torch.tensor([-1.0, 1.0])).exp().log1p())
    True
    """
    if weight < 0:
        raise Refused(f"counterexamples(weight={weight:g}): from 0")
    x = x.detach()
    order = rng.uniform(x.flatten(1)[:, :1])[:, 0].argsort()
    other = order.roll(1)[order.argsort()]  # the next one in a random order, so never the picture itself
    mixed = inside * x + (1 - inside) * x[other]
    with statistics_held(step.model.net):
        return weight * step.cross_entropy(step.model(mixed), y) * inside.flatten(1).any(1)
