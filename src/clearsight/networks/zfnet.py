"""Zeiler & Fergus 2013, arXiv:1311.2901, figure 3; the wider form is that of their ensemble in section 5.1."""

from collections import OrderedDict

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.alexnet import response_norm
from clearsight.networks.common.blocks import dense_head, positive, share, takes

_LAYERS = ((7, 2, 1), (3, 2, 1), (5, 2, 0), (3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 0))


@method(paper="arXiv:1311.2901")
def zfnet(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    wide: bool = False,
    dense: int = 4096,
    dropout: float = 0.5,
) -> nn.Module:
    """AlexNet with a finer first layer, 7 × 7 at stride 2, chosen by looking at features with deconvnets.

    (B, *shape) -> scores (B, classes).

    The contrast normalisation is AlexNet's.

    Args:
        wide: 512, 1024 and 512 maps in the last three convolutions instead of 384, 384 and 256.
        dense: number of units of each hidden dense layer, at least 1.
        dropout: share of the hidden dense units left out in training, at least 0 and below 1.

    Refused: pictures of less than 53 × 53 pixels, fewer than one class, and options outside their ranges.

    >>> import torch
    >>> from clearsight.networks.common.blocks import count
    >>> with torch.device("meta"):
    ...     net = zfnet()
    >>> net.features.conv1.weight.numel(), count(net)
    (14112, 62357608)
    """
    h, w = takes("zfnet", classes, shape, *_LAYERS)
    positive("zfnet", dense=dense)
    share("zfnet", dropout=dropout)
    a, b, c = (512, 1024, 512) if wide else (384, 384, 256)
    features = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(shape[0], 96, 7, stride=2, padding=1), relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, 2, padding=1), norm1=response_norm(),
            conv2=nn.Conv2d(96, 256, 5, stride=2), relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(3, 2, padding=1), norm2=response_norm(),
            conv3=nn.Conv2d(256, a, 3, padding=1), relu3=nn.ReLU(),
            conv4=nn.Conv2d(a, b, 3, padding=1), relu4=nn.ReLU(),
            conv5=nn.Conv2d(b, c, 3, padding=1), relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, 2),
        )
    )  # fmt: skip
    head = dense_head(c * h * w, dense, classes, dropout)
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), head=head))
