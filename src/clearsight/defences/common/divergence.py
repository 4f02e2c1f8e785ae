"""How far one answer is from another, and the attack that drives them apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clearsight.core.targets import Rows


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of the probabilities after from those before: logits (B, K) twice -> (B,).

    >>> import torch
    >>> halves, thirds = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    >>> divergence(halves, thirds)  # 0.5 log(0.5 / 0.25) + 0.5 log(0.5 / 0.75)
    tensor([0.1438])
    """
    p, q = before.log_softmax(1), after.log_softmax(1)
    return (p.exp() * (p - q)).sum(1)


@dataclass(frozen=True, eq=False)
class Diverge:
    """The goal of an attack that the answer is not the one of before.

    loss: minus the divergence of the probabilities from those of before.

    Args:
        before: logits (B, K).
    """

    before: Tensor

    def loss(self, outputs: Tensor) -> Tensor:
        return -divergence(self.before.to(outputs), outputs)

    def slope(self, outputs: Tensor) -> Tensor:
        return self.before.to(outputs).softmax(1) - outputs.softmax(1)

    def met(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1) != self.before.argmax(1).to(outputs.device)

    def __getitem__(self, rows: Rows) -> Diverge:
        return Diverge(self.before[rows])
