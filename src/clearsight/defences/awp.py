"""Wu, Xia & Wang 2020, arXiv:2004.05884, section 4."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import Call, method, parse
from clearsight.core.targets import Goal
from clearsight.core.training_step import TrainingStep
from clearsight.defences.common.factors import check_factor
from clearsight.defences.common.moved_weights import MovedNetwork, of_equal_share
from clearsight.errors import Refused

Attack = Callable[[Tensor, Goal], Tensor]


@method(paper="arXiv:2004.05884")
def awp(
    step: TrainingStep, x: Tensor, y: Tensor, *, inner: str = "adversarial-training", gamma: float = 0.005
) -> Tensor:
    """Adversarial weight perturbation: another defence's loss, where a step of the weights has made it worst.

    x (B, C, *S) in [0, 1], y (B, K) shares of the classes -> (B,), the losses of the inner defence at w + v.  v is one
    step up the gradient of its mean loss at w, in each layer as long as gamma times the length of the weights there.
    Weights are parameters of two axes and more: biases and those of normalisation stay.  The pictures are attacked
    once, at w, and both passes take them; running averages see the second pass alone.  It costs as many training passes
    more as the inner defence has.

    Args:
        inner: the defence whose loss it is, with its options, such as trades(beta=6).
        gamma: length of the step as a share of the length of the weights, from 0.

    Refused: a gamma below 0, and inner defences that keep something from step to step (free), or move weights (awp).

    Source: Wu, Xia & Wang 2020, section 4 and algorithm 1, with one step of the weights.

    Logits 3 a - 2 b and 0 of a picture that is attacked to (0.25, 0.75): the loss rises against it in the first row of
    weights and along it in the second, by as much, and all weights together have the length sqrt(13).

    >>> from clearsight.testing import linear, training_step
    >>> step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]), "fgsm", eps=0.25)
    >>> x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([[1.0, 0.0]])
    >>> attacked = torch.tensor([0.25, 0.75])
    >>> v = 0.1 * 13**0.5 * attacked / (2**0.5 * attacked.norm())  # of each row, with opposite signs
    >>> loss = -(-0.75 - 2 * v @ attacked).sigmoid().log()
    >>> torch.isclose(awp(step, x, y, gamma=0.1), loss).item()
    True
    """
    check_factor("awp", "gamma", gamma)
    call = parse(inner, "defences")
    if "remembers" in call.method.claims or call.method.file == "awp":
        raise Refused(
            f"awp(inner={call}): {call.method.name} cannot be run twice in a step",
            "name a defence such as adversarial-training or trades",
        )
    net, attacked = step.model.net, _attacked_once(step.attack)
    weights = {n: p for n, p in net.named_parameters() if p.requires_grad and p.dim() > 1}
    if not weights:
        return _losses(call, step, x, y)
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    losses = _losses(call, _moved(step, buffers, attacked()), x, y)
    slopes = torch.autograd.grad(losses.mean(), list(weights.values()), allow_unused=True)
    pairs = zip(weights.items(), slopes, strict=True)
    worst = {n: p + of_equal_share(g, p, gamma) for (n, p), g in pairs}
    return _losses(call, _moved(step, worst, attacked()), x, y)


def _losses(inner: Call, step: TrainingStep, x: Tensor, y: Tensor) -> Tensor:
    """The losses (B,) of the inner defence, which draws the same numbers in each pass."""
    with rng.for_versions(torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)):
        losses: Tensor = inner.method(step, x, y, **inner.options)
    return losses


def _moved(step: TrainingStep, instead: dict[str, Tensor], attack: Attack) -> TrainingStep:
    """The step with these tensors in the network's place of its own."""
    return replace(step, model=replace(step.model, net=MovedNetwork(step.model.net, instead)), attack=attack)


def _attacked_once(attack: Attack) -> Callable[[], Attack]:
    """For each pass over the pictures an attack; what the first pass has made is given to the others."""
    made: list[Tensor] = []

    def for_a_pass() -> Attack:
        asked = itertools.count()

        def again(x: Tensor, goal: Goal) -> Tensor:
            k = next(asked)
            if k == len(made):
                made.append(attack(x, goal))
            return made[k]

        return again

    return for_a_pass
