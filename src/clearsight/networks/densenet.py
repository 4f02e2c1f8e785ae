"""Huang, Liu, van der Maaten & Weinberger 2016, arXiv:1608.06993, table 1 (DenseNet-BC)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import conv, he, positive, takes

_LAYERS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


@method(paper="arXiv:1608.06993")
def densenet(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    depth: Literal[121, 161, 169, 201] = 121,
    growth: int = 32,
) -> nn.Module:
    """Dense blocks, in which each layer reads the maps of all layers before it and adds a few.

    (B, *shape) -> scores (B, classes).

    The first convolution has twice as many maps as one layer adds, and the 1 × 1 convolution before each 3 × 3 four
    times as many.  Between blocks the number of maps and both sides are halved.

    Args:
        depth: number of layers with weights.
        growth: number of maps that each layer adds, at least 1.  Depth 161 was published with 48.

    Refused: pictures of less than 29 × 29 pixels, fewer than one class, and a growth below 1.

    >>> from clearsight.networks.common.blocks import count
    >>> with torch.device("meta"):
    ...     count(densenet()), count(densenet(depth=161, growth=48))
    (7978856, 28681000)
    """
    takes("densenet", classes, shape, (7, 2, 3), (3, 2, 1), *[(2, 2, 0)] * 3)
    positive("densenet", growth=growth)
    maps = 2 * growth
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = conv(shape[0], maps, 7, 2, 3, "batch", bias=False)
    layers["pool"] = nn.MaxPool2d(3, 2, padding=1)
    for i, count in enumerate(_LAYERS[depth], 1):
        layers[f"block{i}"] = nn.Sequential(*[Dense(maps + j * growth, growth) for j in range(count)])
        maps += count * growth
        if i < 4:
            layers[f"transition{i}"] = _transition(maps, maps // 2)
            maps //= 2
    layers["norm"] = nn.BatchNorm2d(maps)
    layers["relu"] = nn.ReLU()
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(maps, classes)
    return he(nn.Sequential(layers))


class Dense(nn.Module):
    """Its input, and after it the few maps that it makes of it."""

    def __init__(self, maps: int, growth: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            OrderedDict(
                norm1=nn.BatchNorm2d(maps), relu1=nn.ReLU(), conv1=nn.Conv2d(maps, 4 * growth, 1, bias=False),
                norm2=nn.BatchNorm2d(4 * growth), relu2=nn.ReLU(),
                conv2=nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, maps, H, W) -> (B, maps + growth, H, W)."""
        return torch.cat([x, self.branch(x)], 1)


def _transition(maps: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(maps), relu=nn.ReLU(), conv=nn.Conv2d(maps, outside, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )  # fmt: skip
