"""Ronneberger, Fischer & Brox 2015, arXiv:1505.04597, figure 1."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.segmenters.common.shapes import check_range, check_shape, crop


@method(paper="arXiv:1505.04597")
def unet(
    classes: int = 2,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    width: int = 64,
    depth: int = 4,
    norm: Literal["batch", "none"] = "batch",
) -> nn.Module:
    """Pictures are halved depth times and doubled again; each doubled layer also reads the maps of its own size.

    (B, *shape) -> logits (B, classes, H, W), as large as the picture.

    The paper's convolutions lose a pixel on every side, so that its maps are cropped and its output is smaller than
    the picture.  Here they keep the size.  Halving rounds up and what was doubled loses the place that this added, so
    every side from 2^depth pixels on is taken, even or odd.

    Args:
        width: number of maps of the first layer; each halving doubles it.
        depth: number of halvings, from 1 to 8.
        norm: what stands between convolution and ReLU: "batch" normalises over the batch, "none" is the paper's.

    Refused: pictures with a side of less than 2^depth pixels (16 by default), of which the coarsest map would be less
    than one place wide, and fewer than one class.

    >>> net = unet(2, (1, 21, 16), width=4, depth=2)
    >>> net(torch.rand(1, 1, 21, 16)).shape
    torch.Size([1, 2, 21, 16])
    """
    check_range("unet", 1, 8, depth=depth)
    check_range("unet", 1, 4096, width=width)
    check_shape(f"unet(depth={depth})", classes, shape, 2**depth)
    return UNet(classes, shape[0], width, depth, norm)


class UNet(nn.Module):
    """down: two convolutions for each size, from the finest; enlarge, up: doubling and two more, from the coarsest."""

    def __init__(self, classes: int, channels: int, width: int, depth: int, norm: Literal["batch", "none"]) -> None:
        super().__init__()
        maps = [width * 2**i for i in range(depth + 1)]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.down = nn.ModuleList(_twice(a, b, norm) for a, b in zip([channels, *maps], maps, strict=False))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * m, m, 2, stride=2) for m in reversed(maps[:-1]))
        self.up = nn.ModuleList(_twice(2 * m, m, norm) for m in reversed(maps[:-1]))
        self.score = nn.Conv2d(width, classes, 1)
        for m in self.modules():  # the paper, section 3: a standard deviation of sqrt(2 / inputs of a unit)
            if isinstance(m, nn.Conv2d) and m is not self.score:
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")

    def forward(self, z: Tensor) -> Tensor:
        seen = []
        for i, convolutions in enumerate(self.down):
            z = convolutions(self.pool(z) if i else z)
            seen.append(z)
        for enlarge, convolutions, own in zip(self.enlarge, self.up, reversed(seen[:-1]), strict=True):
            z = convolutions(torch.cat([own, crop(enlarge(z), own)], 1))
        logits: Tensor = self.score(z)
        return logits


def _twice(channels: int, maps: int, norm: Literal["batch", "none"]) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, before in enumerate((channels, maps), 1):
        layers[f"conv{i}"] = nn.Conv2d(before, maps, 3, padding=1, bias=norm == "none")
        if norm == "batch":
            layers[f"norm{i}"] = nn.BatchNorm2d(maps)
        layers[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)
