"""What a training step of the detector ``fcos`` costs: ``python benchmarks/detector_step.py``, writes detector_step.md.

Steps on noise, each loss and its way back, of clearsight's network and of torchvision's FCOS in turn, so that what else
the machine does meets them alike.  torchvision's has the same backbone and pyramid, once as narrow as clearsight's head
and once with its own head of 256 channels.  Counted is the time of the processor in one thread: medians of rounds, and
the median of ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork

from clearsight.backbones.features import make_backbone
from clearsight.core.catalogue import catalogue

HERE = Path(__file__).parent
CLASSES = 3


class Pyramid(nn.Module):
    """EfficientNet-Lite0 with torchvision's feature pyramid, of which strides 8 and 16 are given on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, maps = make_backbone("fcos", "lite0", 3)
        self.fpn = FeaturePyramidNetwork(list(maps), width)
        self.out_channels = width

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        found = self.fpn(OrderedDict((str(i), m) for i, m in enumerate(self.body(z))))
        return {"0": found["0"], "1": found["1"]}


def reference(width: int, convs: int, side: int) -> FCOS:
    """torchvision's FCOS on that pyramid, its BatchNorm frozen as in its own recipe, its pictures not resized."""
    net = FCOS(
        Pyramid(width),
        CLASSES,
        min_size=side,
        max_size=side,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        anchor_generator=AnchorGenerator(((8,), (16,)), ((1.0,), (1.0,))),
        head=FCOSHead(width, 1, CLASSES, convs),
    )
    net.train()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    return net


def truth(batch: int, side: int) -> tuple[list[Tensor], list[Tensor]]:
    """Fourteen boxes in each picture, as in blood smears, of an eighth to a third of the side."""
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(batch, 14, 2, generator=random) * side * 0.65
    sizes = (torch.rand(batch, 14, 2, generator=random) * 0.2 + 0.125) * side
    boxes = torch.cat([corners, corners + sizes], 2)
    return list(boxes), list(torch.randint(0, CLASSES, (batch, 14), generator=random))


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def trained(net: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
    def step() -> None:
        net.zero_grad()
        torch.stack(list(losses().values())).sum().backward()

    return step


def measured(side: int, batch: int, rounds: int) -> list[tuple[str, int, list[float], list[float]]]:
    """Of each network: its name, its parameters, seconds of steps and of forward passes, round by round."""
    z = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))
    boxes, labels = truth(batch, side)
    targets = [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]
    ours: Any = catalogue("detectors")["fcos"](CLASSES, (3, side, side)).train()
    narrow, wide = reference(64, 2, side), reference(256, 4, side)
    steps = [("clearsight `fcos`", ours, trained(ours, lambda: ours.loss(z, boxes, labels)))]
    for name, net in (
        ("torchvision FCOS, 64 channels, 2 convolutions", narrow),
        ("torchvision FCOS, its own head", wide),
    ):
        steps.append((name, net, trained(net, lambda net=net: net(list(z), targets))))
    found: list[tuple[str, int, list[float], list[float]]] = [
        (name, sum(p.numel() for p in net.parameters()), [], []) for name, net, _ in steps
    ]
    for _ in range(rounds + 1):
        for (_, _, times, passes), (_, net, step) in zip(found, steps, strict=True):
            times.append(seconds(step))
            with torch.no_grad():
                whole = net if net is ours else net.backbone
                passes.append(seconds(lambda whole=whole: whole(z)))
    return [(name, size, times[1:], passes[1:]) for name, size, times, passes in found]  # the first round warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    words = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [
        f"{words.batch} pictures, one thread, {words.rounds} rounds in turn, processor seconds, torch "
        f"{torch.__version__}, torchvision {torchvision.__version__}: `python benchmarks/detector_step.py`.",
        "",
        "| pixels | network | parameters | training step, s | of torchvision's narrow step | forward, s |",
        "|---|---|---|---|---|---|",
    ]
    for side in (224, 320):
        rows = measured(side, words.batch, words.rounds)
        of = rows[1][2]
        for i, (name, size, times, passes) in enumerate(rows):
            ratio = statistics.median(t / o for t, o in zip(times, of, strict=True))
            forward = (
                f"{statistics.median(passes):.2f}" if i == 0 else f"{statistics.median(passes):.2f} (pyramid alone)"
            )
            lines.append(f"| {side} | {name} | {size:,} | {statistics.median(times):.2f} | {ratio:.2f} | {forward} |")
    lines += [
        "",
        "torchvision's networks find objects at strides 8 and 16, as clearsight's does. They have a tower",
        "of convolutions for classes and one for boxes, where clearsight's has one for both.",
    ]
    text = "\n".join(lines) + "\n"
    (HERE / "detector_step.md").write_text(f"# What a training step of a detector costs\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
