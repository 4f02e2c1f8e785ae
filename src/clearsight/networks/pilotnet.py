"""Bojarski et al. 2016 (NVIDIA), arXiv:1604.07316, figure 4."""

from collections import OrderedDict

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import conv, takes

_LAYERS = ((5, 2, 0), (5, 2, 0), (5, 2, 0), (3, 1, 0), (3, 1, 0))


@method(paper="arXiv:1604.07316")
def pilotnet(classes: int = 1, shape: tuple[int, ...] = (3, 66, 200)) -> nn.Module:
    """Five convolutions and four dense layers, from the picture of a car's camera to a steering angle.

    (B, *shape) -> values (B, classes).  classes is the number of outputs, 1 for steering alone.

    The paper names no activation; this network has ReLU.

    Refused: pictures of less than 61 × 61 pixels, and fewer than one output.

    >>> from clearsight.networks.common.blocks import count
    >>> count(pilotnet())
    252219
    """
    h, w = takes("pilotnet", classes, shape, *_LAYERS)
    features = nn.Sequential(
        OrderedDict(
            conv1=conv(shape[0], 24, 5, 2), conv2=conv(24, 36, 5, 2), conv3=conv(36, 48, 5, 2), conv4=conv(48, 64, 3),
            conv5=conv(64, 64, 3),
        )
    )  # fmt: skip
    head = nn.Sequential(
        OrderedDict(
            dense1=nn.Linear(64 * h * w, 100), relu1=nn.ReLU(), dense2=nn.Linear(100, 50), relu2=nn.ReLU(),
            dense3=nn.Linear(50, 10), relu3=nn.ReLU(), output=nn.Linear(10, classes),
        )
    )  # fmt: skip
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), head=head))
