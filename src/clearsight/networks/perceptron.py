"""Rosenblatt 1958, Psychological Review 65, 386; here without the step, so that it has a slope."""

import math
from collections import OrderedDict

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import takes


@method(paper="doi:10.1037/h0042519")
def perceptron(classes: int = 10, shape: tuple[int, ...] = (1, 28, 28)) -> nn.Module:
    """One dense layer: each score is a weighted sum of all pixels plus a bias.

    (B, *shape) -> scores (B, classes).

    Its decision borders are straight, so it cannot learn XOR.

    Refused: fewer than one class.

    A digit of 28 × 28 pixels has 784 weights and a bias for each of ten classes:

    >>> from clearsight.networks.common.blocks import count
    >>> count(perceptron())
    7850
    """
    takes("perceptron", classes, shape, axes=None)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), dense=nn.Linear(math.prod(shape), classes)))
