"""The small network that attacks are measured on: one pass over 20,000 digits of MNIST teaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from digits import idx
from torch import Tensor, nn


def taught(mnist: Path, pictures: int, file: Path) -> None:
    """Teach the network; keep it in file, with pictures (B, 1, 28, 28) that it reads rightly, and their classes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    x, y = part(mnist, "train", 20_000)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for rows in torch.randperm(len(x)).split(64):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval().requires_grad_(False)
    x, y = part(mnist, "t10k", 2 * pictures)
    with torch.no_grad():
        right = net(x).argmax(1) == y
    torch.save((net, x[right][:pictures].clone(), y[right][:pictures].clone()), file)


def part(mnist: Path, stem: str, count: int) -> tuple[Tensor, Tensor]:
    x, y = (idx(next(mnist.glob(f"{stem}-{kind}*")))[:count].copy() for kind in ("images", "labels"))
    return torch.from_numpy(x)[:, None] / 255, torch.from_numpy(y).long()


def kept(file: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """What `taught` kept: a file of our own, so that its classes may be unpickled."""
    net, x, y = torch.load(file, weights_only=False)
    return net, x, y


def wrapped(net: nn.Module) -> Any:
    import clearsight as cs

    return cs.wrap(net, cs.Preprocess(28, (0.0,), (1.0,)), labels=list("0123456789"))
