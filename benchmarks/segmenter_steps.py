"""What a training step of a segmenter costs beside torchvision's: ``python benchmarks/segmenter_steps.py [ROUNDS]``.

A step of torchvision's reference script for segmentation: its network with its own interpolation, cross entropy that
ignores 255, SGD with momentum, without the auxiliary head.  Ours: a segmenter of the catalogue, interpolation, our
cross entropy, the same SGD.  On one backbone each: EfficientNet-Lite0 below heads of torchvision for fcn, and
torchvision's own networks for those that are theirs.  Each round takes every step in turn, on one thread, and counts
the seconds of the processor.  Writes benchmarks/segmenter_steps.md.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import segmentation
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.segmentation.lraspp import LRASPP

from clearsight.backbones.features import make_backbone
from clearsight.core.catalogue import parse
from clearsight.core.memory import reuse_memory
from clearsight.segmenters.common.losses import NOT_JUDGED, cross_entropy

OUT = Path(__file__).with_suffix(".md")
CLASSES, BATCH, SIDE, WARM = 21, 8, 224, 2


@dataclass
class Kind:
    """One kind of step, and what each round took of the processor."""

    name: str
    beside: str  # the step of torchvision's that it is held against; "" of those
    net: nn.Module
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sgd = torch.optim.SGD(self.net.train().parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def step(self, z: Tensor, truth: Tensor) -> None:
        began = time.process_time()
        loss = self.loss(self.net, z, truth)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.seconds.append(time.process_time() - began)


class Lite0(nn.Module):
    """EfficientNet-Lite0 as torchvision's heads take a backbone: maps by name."""

    def __init__(self) -> None:
        super().__init__()
        self.net, _ = make_backbone("fcn", "lite0", 3)

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        fine, _, coarse = self.net(z)
        return OrderedDict(low=fine, high=coarse, out=coarse)


def ours(spelling: str) -> nn.Module:
    call = parse(spelling, "segmenters")
    net = call.method(CLASSES, (3, SIDE, SIDE), **call.options)
    assert isinstance(net, nn.Module)
    return net


def our_loss(net: nn.Module, z: Tensor, truth: Tensor) -> Tensor:
    return cross_entropy(F.interpolate(net(z), size=z.shape[2:], mode="bilinear"), truth)


def their_loss(net: nn.Module, z: Tensor, truth: Tensor) -> Tensor:
    return F.cross_entropy(net(z)["out"], truth, ignore_index=NOT_JUDGED)


def kinds() -> list[Kind]:
    none: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
    fcn, lraspp, deeplab = (f"torchvision's {n} on Lite0" for n in ("FCN", "LR-ASPP", "DeepLabv3"))
    theirs = {
        fcn: FCN(Lite0(), FCNHead(320, CLASSES)),
        lraspp: LRASPP(Lite0(), 40, 320, CLASSES),
        deeplab: DeepLabV3(Lite0(), DeepLabHead(320, CLASSES)),
        "lraspp_mobilenet_v3_large": segmentation.lraspp_mobilenet_v3_large(**none),
        "deeplabv3_mobilenet_v3_large": segmentation.deeplabv3_mobilenet_v3_large(**none),
    }
    found = [Kind(name, "", net, their_loss) for name, net in theirs.items()]
    for spelling, beside in (
        ("fcn(stride=32)", fcn), ("fcn(stride=16)", fcn), ("fcn(stride=8)", fcn),
        ("fcn(stride=8, last=learned)", fcn), ("lraspp", "lraspp_mobilenet_v3_large"),
        ("deeplabv3", "deeplabv3_mobilenet_v3_large"),
    ):  # fmt: skip
        found.append(Kind(spelling, beside, ours(spelling), our_loss))
    return found


def row(kind: Kind, by_name: dict[str, Kind]) -> str:
    own = kind.seconds[WARM:]
    cells = [kind.name, f"{median(own):.2f}", kind.beside]
    if kind.beside:
        ratios = sorted(a / b for a, b in zip(own, by_name[kind.beside].seconds[WARM:], strict=True))
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        cells += [f"{median(ratios):.2f}", f"{low:.2f} to {high:.2f}"]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    torch.manual_seed(0)
    z, truth = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(CLASSES, (BATCH, SIDE, SIDE))
    truth[:, :8] = NOT_JUDGED
    found = kinds()
    for r in range(rounds + WARM):
        for kind in found:
            kind.step(z, truth)
        print(r, [round(k.seconds[-1], 2) for k in found], flush=True)
    by_name = {kind.name: kind for kind in found}
    lines = [
        "# What a training step of a segmenter costs",
        "",
        f"Made by `python benchmarks/segmenter_steps.py {rounds}`: {BATCH} pictures of {SIDE} x {SIDE} pixels, "
        f"{CLASSES}",
        "classes, on one thread, in seconds of the processor; each round takes one step of every kind in turn. "
        "A step of",
        "torchvision's is that of its reference script for segmentation, without the auxiliary head. "
        "The cost of ours is",
        "the median over the rounds of its seconds divided by those of torchvision's step in the same round. Asked are",
        "at most 1.1.",
        "",
        "| step | seconds | held against | cost | quarter to three quarters of the rounds |",
        "|---|---:|---|---:|---:|",
        *(row(kind, by_name) for kind in found),
        "",
    ]
    OUT.write_text("\n".join(lines))


if __name__ == "__main__":
    torch.set_num_threads(1)
    reuse_memory()
    main()
