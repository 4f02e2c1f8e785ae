"""Simonyan & Zisserman 2014, arXiv:1409.1556, table 1."""

from collections import OrderedDict
from typing import Literal

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import conv, dense_head, he, positive, share, takes

_WIDTHS = (64, 128, 256, 512, 512)
_KERNELS = {  # of the convolutions of the five stages: the paper's columns A, B, C, D and E
    11: ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    13: ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "16C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    16: ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    19: ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}


@method(paper="arXiv:1409.1556")
def vgg(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    depth: Literal[11, 13, 16, "16C", 19] = 16,
    norm: Literal["none", "batch"] = "none",
    dense: int = 4096,
    dropout: float = 0.5,
) -> nn.Module:
    """Five stages of 3 × 3 convolutions, each followed by pooling that halves the sides, then three dense layers.

    (B, *shape) -> scores (B, classes).

    The stages have 64, 128, 256, 512 and 512 maps.  He's initialisation replaces the paper's training of column A
    first.

    Args:
        depth: number of layers with weights.  11, 13, 16 and 19 are the paper's columns A, B, D and E; "16C" is C,
            where the last convolution of the deeper stages is 1 × 1.
        norm: "batch" adds batch normalisation after each convolution, which the paper has not; "none" does not.
        dense: number of units of each hidden dense layer, at least 1.
        dropout: share of the hidden dense units left out in training, at least 0 and below 1.

    Refused: pictures of less than 32 × 32 pixels, fewer than one class, and options outside their ranges.

    >>> import torch
    >>> from clearsight.networks.common.blocks import count
    >>> with torch.device("meta"):
    ...     count(vgg()), count(vgg(depth=11))
    (138357544, 132863336)
    """
    h, w = takes("vgg", classes, shape, *[(2, 2, 0)] * 5)
    positive("vgg", dense=dense)
    share("vgg", dropout=dropout)
    features: OrderedDict[str, nn.Module] = OrderedDict()
    channels = shape[0]
    for i, (width, kernels) in enumerate(zip(_WIDTHS, _KERNELS[depth], strict=True), 1):
        for j, kernel in enumerate(kernels, 1):
            features[f"conv{i}_{j}"] = conv(channels, width, kernel, padding=kernel // 2, norm=norm)
            channels = width
        features[f"pool{i}"] = nn.MaxPool2d(2)
    head = dense_head(channels * h * w, dense, classes, dropout)
    return he(nn.Sequential(OrderedDict(features=nn.Sequential(features), flatten=nn.Flatten(), head=head)))
