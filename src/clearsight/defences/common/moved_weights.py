"""A network that is run with other weights, while its own stay what they are."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call


class MovedNetwork(nn.Module):
    """A network, run with these tensors in the place of its parameters and buffers of the same names."""

    def __init__(self, net: nn.Module, instead: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.net, self.instead = net, dict(instead)

    def forward(self, z: Tensor) -> object:
        return functional_call(self.net, self.instead, (z,))


def of_equal_share(gradient: Tensor | None, weight: Tensor, share: float) -> Tensor:
    """A move along the gradient of a weight, as long as this share of the weight; 0 where there is no gradient.

    >>> import torch
    >>> of_equal_share(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 10.0]]), 0.1)
    tensor([[0.6000, 0.8000]])
    """
    if gradient is None:
        return weight.new_zeros(())
    top = gradient.abs().amax()
    if not bool(top > 0):
        return weight.new_zeros(())
    way = gradient / top  # the squares of very small numbers cannot be held
    move: Tensor = share * weight.detach().norm() / way.norm() * way
    return move
