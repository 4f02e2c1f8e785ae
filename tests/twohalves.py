"""Pictures of two halves, a network that sees one of them, and what a check finds of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.annotations import Region
from clearsight.data.datasets import Picture, Pictures
from clearsight.reporting.findings import Finding

HEIGHT, WIDTH = 16, 32


class Halves(nn.Module):
    """Class 0 or 1 by how bright the left (or right) half is; what else the picture holds does not matter.

    Logit 0 is ``gain`` times the mean brightness of that half, logit 1 the same of darkness; further classes are never
    given.
    """

    def __init__(self, side: str = "left", gain: float = 20.0, classes: int = 2) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1)
        self.features.weight.data = torch.tensor([[[[1.0]]], [[[-1.0]]]])
        self.features.bias.data = torch.tensor([0.0, 1.0])
        mask = torch.zeros(1, 1, HEIGHT, WIDTH)
        mask[..., : WIDTH // 2] = 1
        self.register_buffer("mask", mask if side == "left" else mask.flip(3))
        self.gain, self.classes = gain, classes

    def forward(self, x: Tensor) -> Tensor:
        two = self.gain * 2 * (self.features(x) * self.mask).mean((2, 3))
        return torch.cat([two, two.new_full((len(x), self.classes - 2), -50.0)], 1)


def model(net: nn.Module, labels: Sequence[str] = ("bright", "dark")) -> Classifier:
    return Classifier(net, Preprocess((HEIGHT, WIDTH), (0.0,), (1.0,)), tuple(labels), "small")


def written(
    folder: Path, pictures: Sequence[np.ndarray], labels: Sequence[tuple[str, ...]], region: str = ""
) -> Pictures:
    """Grey pictures as PNG; region: "left" or "right", a box around that half."""
    left, right = (0.0, 0.0, WIDTH / 2, float(HEIGHT)), (WIDTH / 2, 0.0, float(WIDTH), float(HEIGHT))
    regions = (Region(boxes=(left if region == "left" else right,)),) if region else None
    out = []
    for i, (a, words) in enumerate(zip(pictures, labels, strict=True)):
        path = folder / f"{i:02d}.png"
        Image.fromarray(a.astype(np.uint8)).save(path)
        out.append(Picture(path, path.name, words, regions, {"hospital": "AB"[i // 2 % 2]}))
    return Pictures(folder, tuple(out))


def found(case: Case, check: str) -> Finding:
    (finding,) = run_checks(case, parse_checks(check))
    return finding


def rows(finding: Finding, caption: str) -> tuple[dict[str, object], ...]:
    return next(t.rows for t in finding.tables if t.caption.startswith(caption))
