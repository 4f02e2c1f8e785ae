"""Networks that cut a picture into tokens, made to measure or by name."""

from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess


def made(name: str, size: tuple[int, int] = (64, 64)) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name.startswith("timm:"):
            net = timm.create_model(name[5:], img_size=size, num_classes=4, depth=3)
        else:
            extra = {"image_size": size[0]} if name == "vit_b_16" else {}
            net = torchvision.models.get_model(name, weights=None, num_classes=4, **extra)
        for m in net.modules():
            if isinstance(m, nn.Linear) and not m.weight.any():
                nn.init.normal_(m.weight, std=0.05)
    return Classifier(net.eval(), Preprocess(size, (0.5,) * 3, (0.5,) * 3), tuple("abcd"), name)


class Laid(nn.Module):
    """Patches of a picture as tokens, some extra ones before and behind them, all mixed, and a head."""

    def __init__(self, before: int, after: int, order: Tensor | None = None, attends: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut = nn.Conv2d(3, 12, 4, stride=4)
        self.extra = nn.Parameter(torch.randn(1, before + after, 12))
        self.before, self.order = before, order
        self.mixed = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True) if attends else nn.Linear(12, 12)
        self.last = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.cut(x).flatten(2).mT
        tokens = tokens if self.order is None else tokens[:, self.order]
        extra = self.extra.expand(len(x), -1, -1)
        z = self.mixed(torch.cat([extra[:, : self.before], tokens, extra[:, self.before :]], 1))
        return self.head(self.last(z).mean(1))


def laid(size: tuple[int, int], *counts: int, **more: Any) -> Classifier:
    return Classifier(Laid(*counts, **more).eval(), Preprocess(size, (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "laid")
