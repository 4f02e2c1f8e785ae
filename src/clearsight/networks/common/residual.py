"""Residual networks, with or without squeeze and excitation."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from clearsight.errors import Refused
from clearsight.networks.common.blocks import conv, he, takes

Depth = Literal[18, 20, 32, 34, 44, 50, 56, 101, 110, 152]
Stem = Literal["imagenet", "cifar"]
Version = Literal["1", "1.5"]

_BLOCKS = {  # in each stage: He et al. 2015, table 1 and section 4.2
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
    20: (3, 3, 3), 32: (5, 5, 5), 44: (7, 7, 7), 56: (9, 9, 9), 110: (18, 18, 18),
}  # fmt: skip


def residual(
    name: str, classes: int, shape: tuple[int, ...], depth: Depth, stem: Stem, version: Version, ratio: int | None
) -> nn.Module:
    """The network that ``resnet`` and ``se_resnet`` describe; ratio: of squeeze and excitation, where there is any."""
    blocks = _BLOCKS[depth]
    small = len(blocks) == 3
    if small and stem == "imagenet":
        raise Refused(f"{name}(depth={depth}) is the paper's network for pictures of 32 x 32: give stem=cifar too")
    first = ((7, 2, 3), (3, 2, 1)) if stem == "imagenet" else ((3, 1, 1),)
    takes(name, classes, shape, *first, *[(3, 2, 1)] * (len(blocks) - 1))
    channels = 16 if small else 64
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stem == "imagenet":
        layers["stem"] = conv(shape[0], channels, 7, 2, 3, "batch", bias=False)
        layers["pool"] = nn.MaxPool2d(3, 2, padding=1)
    else:
        layers["stem"] = conv(shape[0], channels, 3, 1, 1, "batch", bias=False)
    for i, count in enumerate(blocks):
        width, stage = (16 if small else 64) * 2**i, []
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            outside = width * (4 if depth >= 50 and not small else 1)
            wide = outside > width
            branch = _bottleneck(channels, width, stride, version) if wide else _basic(channels, width, stride)
            if ratio is not None:
                branch["gate"] = Gate(outside, ratio)
            shortcut = (_padded if small else _projected)(channels, outside, stride)
            stage.append(Residual(nn.Sequential(branch), shortcut))
            channels = outside
        layers[f"stage{i + 1}"] = nn.Sequential(*stage)
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, classes)
    return he(nn.Sequential(layers))


class Residual(nn.Module):
    """What a branch adds to its input, rectified."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return out


class Gate(nn.Module):
    """Squeeze and excitation: each map times a factor in (0, 1) that two dense layers read from all maps' averages."""

    def __init__(self, maps: int, ratio: int) -> None:
        super().__init__()
        if not 1 <= ratio <= maps:
            raise Refused(f"ratio must be from 1 to {maps}, the number of maps, not {ratio}")
        self.weigh = nn.Sequential(
            OrderedDict(
                squeeze=nn.AdaptiveAvgPool2d(1), dense1=nn.Conv2d(maps, maps // ratio, 1), relu=nn.ReLU(),
                dense2=nn.Conv2d(maps // ratio, maps, 1), sigmoid=nn.Sigmoid(),
            )
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.weigh(x)
        return out


def _basic(channels: int, width: int, stride: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict(
        conv1=nn.Conv2d(channels, width, 3, stride, 1, bias=False), norm1=nn.BatchNorm2d(width), relu1=nn.ReLU(),
        conv2=nn.Conv2d(width, width, 3, padding=1, bias=False), norm2=nn.BatchNorm2d(width),
    )  # fmt: skip


def _bottleneck(channels: int, width: int, stride: int, version: Version) -> OrderedDict[str, nn.Module]:
    first, second = (stride, 1) if version == "1" else (1, stride)
    return OrderedDict(
        conv1=nn.Conv2d(channels, width, 1, first, bias=False), norm1=nn.BatchNorm2d(width), relu1=nn.ReLU(),
        conv2=nn.Conv2d(width, width, 3, second, 1, bias=False), norm2=nn.BatchNorm2d(width), relu2=nn.ReLU(),
        conv3=nn.Conv2d(width, 4 * width, 1, bias=False), norm3=nn.BatchNorm2d(4 * width),
    )  # fmt: skip


def _projected(channels: int, outside: int, stride: int) -> nn.Module:
    """The paper's option B: the input itself, and where shapes differ a 1 × 1 convolution of it."""
    if channels == outside and stride == 1:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(channels, outside, 1, stride, bias=False), norm=nn.BatchNorm2d(outside))
    )


def _padded(channels: int, outside: int, stride: int) -> nn.Module:
    """The paper's option A: the input itself, and where shapes differ every second place, with maps of zeros added."""
    if channels == outside and stride == 1:
        return nn.Identity()
    zeros = nn.ConstantPad3d((0, 0, 0, 0, 0, outside - channels), 0.0)
    return nn.Sequential(OrderedDict(every_second=nn.AvgPool2d(1, stride), zeros=zeros))
