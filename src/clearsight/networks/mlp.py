"""Rumelhart, Hinton & Williams 1986, Nature 323, 533.  Maxout: Goodfellow et al. 2013, arXiv:1302.4389."""

import math
from collections import OrderedDict
from typing import Literal

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import numbers, share, takes


@method(paper="doi:10.1038/323533a0")
def mlp(
    classes: int = 10,
    shape: tuple[int, ...] = (1, 28, 28),
    *,
    hidden: str = "64",
    activation: Literal["sigmoid", "tanh", "relu", "leaky-relu", "elu", "maxout"] = "sigmoid",
    dropout: float = 0.0,
) -> nn.Module:
    """Dense layers with an activation between them.

    (B, *shape) -> scores (B, classes).

    Args:
        hidden: number of units of each hidden layer, such as "64,128", each at least 1; "" has no hidden layer, which
            is the perceptron.
        activation: the function after each hidden layer.  leaky-relu has a slope of 0.1 below zero.  A maxout unit is
            the larger of two sums, which doubles the weights of its layer.
        dropout: share of the hidden units left out in training, at least 0 and below 1.

    Refused: fewer than one class, and options outside their ranges.

    Two hidden units tell XOR: (2 + 1) weights and biases for each, and for each of two scores:

    >>> from clearsight.networks.common.blocks import count
    >>> count(mlp(2, (1, 1, 2), hidden="2"))
    12
    """
    takes("mlp", classes, shape, axes=None)
    share("mlp", dropout=dropout)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    before = math.prod(shape)
    for i, width in enumerate(numbers("mlp", "hidden", hidden), 1):
        layers[f"dense{i}"] = nn.Linear(before, width * (2 if activation == "maxout" else 1))
        layers[activation.replace("-", "_") + str(i)] = _activation(activation)
        if dropout:
            layers[f"drop{i}"] = nn.Dropout(dropout)
        before = width
    layers["scores"] = nn.Linear(before, classes)
    return nn.Sequential(layers)


def _activation(name: str) -> nn.Module:
    if name == "maxout":
        return nn.Sequential(nn.Unflatten(1, (1, -1)), nn.MaxPool1d(2), nn.Flatten())
    kinds = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU}
    return nn.LeakyReLU(0.1) if name == "leaky-relu" else kinds[name]()
