"""A convolution, averages and a linear head on small pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess

SIDE = 16


class Pooled(nn.Module):
    """A convolution, averages and a linear head: HiResCAM and Grad-CAM are the same there."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(8, 3)
            self.head.weight.data *= 20

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x).mean((2, 3)))
        return scores


def classifier(seed: int = 0, labels: tuple[str, ...] = ("a", "b", "c")) -> Classifier:
    return Classifier(Pooled(seed), Preprocess((SIDE, SIDE), (0.5,) * 3, (0.5,) * 3), labels, "pooled")
