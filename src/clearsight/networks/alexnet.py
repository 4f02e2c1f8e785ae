"""Krizhevsky, Sutskever & Hinton 2012, Communications of the ACM 60, 84 (2017); one tower on one device."""

from collections import OrderedDict
from typing import Literal

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import dense_head, positive, share, takes

_LAYERS = ((11, 4, 0), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 0))


@method(paper="doi:10.1145/3065386")
def alexnet(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 227, 227),
    *,
    groups: Literal[1, 2] = 1,
    dense: int = 4096,
    dropout: float = 0.5,
) -> nn.Module:
    """Five convolutions with ReLU and overlapping pooling, then three dense layers; the winner of ImageNet in 2012.

    (B, *shape) -> scores (B, classes).

    Responses are normalised across maps before pooling, as in the paper.

    Args:
        groups: 2 lets the second, fourth and fifth convolution read only their half of the maps, as on the paper's two
            GPUs.
        dense: number of units of each hidden dense layer, at least 1.
        dropout: share of the hidden dense units left out in training, at least 0 and below 1.

    Refused: pictures of less than 67 × 67 pixels, fewer than one class, and options outside their ranges.

    >>> import torch
    >>> from clearsight.networks.common.blocks import count
    >>> with torch.device("meta"):
    ...     count(alexnet()), count(alexnet(groups=2))
    (62378344, 60965224)
    """
    h, w = takes("alexnet", classes, shape, *_LAYERS)
    positive("alexnet", dense=dense)
    share("alexnet", dropout=dropout)
    features = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(shape[0], 96, 11, stride=4), relu1=nn.ReLU(), norm1=response_norm(),
            pool1=nn.MaxPool2d(3, 2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=groups), relu2=nn.ReLU(), norm2=response_norm(),
            pool2=nn.MaxPool2d(3, 2),
            conv3=nn.Conv2d(256, 384, 3, padding=1), relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=groups), relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=groups), relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, 2),
        )
    )  # fmt: skip
    head = dense_head(256 * h * w, dense, classes, dropout)
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), head=head))


def response_norm() -> nn.LocalResponseNorm:
    """Each value divided by (2 + 1e-4 · the sum of squares over five neighbouring maps) to the 0.75, as in 3.3."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)  # torch divides alpha by five
