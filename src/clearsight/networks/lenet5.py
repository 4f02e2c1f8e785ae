"""LeCun, Bottou, Bengio & Haffner 1998, Proceedings of the IEEE 86, 2278, section II.B and appendix A."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import takes

# table I: which of S2's six maps each of C3's sixteen reads
C3 = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
_LAYERS = ((5, 1, 0), (2, 2, 0), (5, 1, 0), (2, 2, 0), (5, 1, 0))


@method(paper="doi:10.1109/5.726791")
def lenet5(
    classes: int = 10,
    shape: tuple[int, ...] = (1, 32, 32),
    *,
    c3: Literal["sparse", "full"] = "sparse",
    form: Literal["1998", "modern"] = "1998",
) -> nn.Module:
    """Two convolutions, each followed by subsampling, a third convolution and dense layers, for handwritten digits.

    (B, *shape) -> scores (B, classes).

    Args:
        c3: how the second convolution reads the maps before it: "sparse" by the paper's table, "full" all of them for
            each map.
        form: "1998" subsamples by a sum with a trained factor and bias, has the activation 1.7159 tanh(2a/3), and
            scores a class by minus the squared distance to its code of 84 signs.  The code is drawn once and fixed,
            which the paper allows; the paper drew letters.  "modern" has max pooling, ReLU and a dense layer of scores.

    Refused: pictures of less than 32 × 32 pixels, and fewer than one class.

    The paper counts 60,000 trained parameters, and the usual modern form has 61,706:

    >>> from clearsight.networks.common.blocks import count
    >>> count(lenet5()), count(lenet5(c3="full", form="modern"))
    (60000, 61706)
    """
    h, w = takes("lenet5", classes, shape, *_LAYERS)
    old = form == "1998"

    def act() -> nn.Module:
        return ScaledTanh() if old else nn.ReLU()

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["c1"] = nn.Conv2d(shape[0], 6, 5)
    layers["act1"] = act()
    layers["s2"] = subsampling(6) if old else nn.MaxPool2d(2)
    layers["c3"] = SparseConv(C3, 5) if c3 == "sparse" else nn.Conv2d(6, 16, 5)
    layers["act3"] = act()
    layers["s4"] = subsampling(16) if old else nn.MaxPool2d(2)
    layers["c5"] = nn.Conv2d(16, 120, 5)
    layers["act5"] = act()
    layers["flatten"] = nn.Flatten()
    layers["f6"] = nn.Linear(120 * h * w, 84)
    layers["act6"] = act()
    layers["output"] = Distances(84, classes) if old else nn.Linear(84, classes)
    net = nn.Sequential(layers)
    if old:
        _begin(net)
    return net


def _begin(net: nn.Module) -> None:
    """Draw the weights anew from -2.4 / F to 2.4 / F, where F is how many inputs a unit has (appendix A)."""
    for name, m in net.named_modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            inputs = 4 if name.endswith("scale") else m.weight[0].numel()
            nn.init.uniform_(m.weight, -2.4 / inputs, 2.4 / inputs)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def subsampling(maps: int) -> nn.Sequential:
    """The sum of 2 × 2 places, times a factor, plus a bias, both trained and one for each map; squashed."""
    return nn.Sequential(
        OrderedDict(
            sum=nn.AvgPool2d(2, divisor_override=1), scale=nn.Conv2d(maps, maps, 1, groups=maps), act=ScaledTanh()
        )
    )


class ScaledTanh(nn.Module):
    """1.7159 tanh(2a/3): 1 at 1, and steepest around 0."""

    def forward(self, a: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(a * (2 / 3))


class SparseConv(nn.Module):
    """A convolution each of whose maps reads only some of the maps before it, by a table."""

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel: int) -> None:
        super().__init__()
        self.table = table
        self.maps = nn.ModuleList(nn.Conv2d(len(row), 1, kernel) for row in table)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 6, H, W) -> (B, 16, H - 4, W - 4)."""
        return torch.cat([m(x[:, list(row)]) for m, row in zip(self.maps, self.table, strict=True)], 1)


class Distances(nn.Module):
    """Minus the squared distance to each class's code of signs, which is not trained."""

    codes: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        signs = random.Random(0)
        self.register_buffer(
            "codes", torch.tensor([[signs.choice((-1.0, 1.0)) for _ in range(features)] for _ in range(classes)])
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) -> (B, classes)."""
        return -(x[:, None] - self.codes).square().sum(2)
