"""Szegedy et al. 2014, arXiv:1409.4842, table 1 and section 5."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.networks.alexnet import response_norm
from clearsight.networks.common.blocks import Norm, conv, he, takes

# table 1: maps of 1x1; of 1x1 before 3x3, of 3x3; of 1x1 before 5x5, of 5x5; of 1x1 after pooling
WIDTHS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_STAGES = ((7, 2, 3), (3, 2, 1), (3, 2, 1), (3, 2, 1))


@method(paper="arXiv:1409.4842")
def googlenet(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    aux: bool = True,
    norm: Literal["none", "batch"] = "none",
    dropout: float = 0.4,
) -> nn.Module:
    """Nine inception blocks of four parallel paths: 1 × 1, 3 × 3 and 5 × 5 after 1 × 1, and pooling.

    (B, *shape) -> scores (B, classes).  In training mode with aux it returns (scores, aux1, aux2), where aux1 and aux2
    come from the auxiliary heads on 4a and 4d and count 0.3 each in the paper's loss.

    Args:
        aux: whether the network has the two auxiliary heads.
        norm: "batch" adds batch normalisation after each convolution, which the paper has not; "none" does not.
        dropout: share of the units left out before the last layer in training; the auxiliary heads have 0.7.

    Refused: pictures of less than 65 × 65 pixels with the auxiliary heads, or 17 × 17 without, and fewer than one
    class.

    Without and with the auxiliary heads:

    >>> from clearsight.networks.common.blocks import count
    >>> with torch.device("meta"):
    ...     count(googlenet(aux=False)), count(googlenet())
    (6998552, 13378280)
    """
    takes("googlenet", classes, shape, *_STAGES, (3, 2, 1))
    aux_sides = takes("googlenet", classes, shape, *_STAGES, (5, 3, 0)) if aux else None
    return he(GoogLeNet(classes, shape[0], aux_sides, norm, dropout))


class GoogLeNet(nn.Module):
    """aux_sides: of the auxiliary heads' pooled maps (4 × 4 in the paper); None where there are no such heads."""

    def __init__(
        self, classes: int, channels: int, aux_sides: tuple[int, ...] | None, norm: Norm, dropout: float
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=conv(channels, 64, 7, 2, 3, norm), pool1=nn.MaxPool2d(3, 2, padding=1), norm1=response_norm(),
                reduce2=conv(64, 64, 1, norm=norm), conv2=conv(64, 192, 3, padding=1, norm=norm), norm2=response_norm(),
                pool2=nn.MaxPool2d(3, 2, padding=1),
            )
        )  # fmt: skip
        self.inception3a = Inception(192, *WIDTHS["3a"], norm)
        self.inception3b = Inception(256, *WIDTHS["3b"], norm)
        self.pool3 = nn.MaxPool2d(3, 2, padding=1)
        self.inception4a = Inception(480, *WIDTHS["4a"], norm)
        self.inception4b = Inception(512, *WIDTHS["4b"], norm)
        self.inception4c = Inception(512, *WIDTHS["4c"], norm)
        self.inception4d = Inception(512, *WIDTHS["4d"], norm)
        self.inception4e = Inception(528, *WIDTHS["4e"], norm)
        self.pool4 = nn.MaxPool2d(3, 2, padding=1)
        self.inception5a = Inception(832, *WIDTHS["5a"], norm)
        self.inception5b = Inception(832, *WIDTHS["5b"], norm)
        self.pool5 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(1024, classes)
        self.aux1 = None if aux_sides is None else auxiliary(512, aux_sides, classes, norm)
        self.aux2 = None if aux_sides is None else auxiliary(528, aux_sides, classes, norm)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        x = self.pool3(self.inception3b(self.inception3a(self.stem(x))))
        a = self.inception4a(x)
        d = self.inception4d(self.inception4c(self.inception4b(a)))
        x = self.pool4(self.inception4e(d))
        x = self.inception5b(self.inception5a(x))
        scores: Tensor = self.head(self.drop(self.flatten(self.pool5(x))))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return scores, self.aux1(a), self.aux2(d)
        return scores


class Inception(nn.Module):
    """Four paths over the same maps, their own maps one after the other; the widths are a row of table 1."""

    def __init__(
        self, channels: int, one: int, before3: int, three: int, before5: int, five: int, pooled: int, norm: Norm
    ) -> None:
        super().__init__()
        self.one = conv(channels, one, 1, norm=norm)
        self.three = nn.Sequential(conv(channels, before3, 1, norm=norm), conv(before3, three, 3, padding=1, norm=norm))
        self.five = nn.Sequential(conv(channels, before5, 1, norm=norm), conv(before5, five, 5, padding=2, norm=norm))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(channels, pooled, 1, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


def auxiliary(channels: int, sides: tuple[int, ...], classes: int, norm: Norm) -> nn.Sequential:
    """A head on inner maps: averages of 5 × 5 places at stride 3, 128 maps of 1 × 1, 1024 units, scores."""
    return nn.Sequential(
        OrderedDict(
            pool=nn.AvgPool2d(5, 3), conv=conv(channels, 128, 1, norm=norm), flatten=nn.Flatten(),
            dense=nn.Linear(128 * sides[0] * sides[1], 1024), relu=nn.ReLU(), drop=nn.Dropout(0.7),
            head=nn.Linear(1024, classes),
        )
    )  # fmt: skip
