"""A tiny classifier whose reasons are known, and pictures for it: what a user of the command line might have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import clearsight as cs

COLOURS = ("red", "green", "blue")
SIDE = 32


class Whole(nn.Module):
    """A Classifier as a module, for libraries that want one."""

    def __init__(self, model: cs.Classifier) -> None:
        super().__init__()
        self.net, self.model = model.net, model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def smooth() -> cs.Classifier:
    """A smooth network of 8 × 12 pictures and four classes, whose gradient is different everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(6, 5, 3, padding=1), nn.Tanh(), nn.Flatten()
        )
        net.append(nn.Linear(5 * 4 * 6, 4))
    for p in net[5].parameters():
        p.data *= 4
    return cs.Classifier(net.eval(), cs.Preprocess((8, 12), (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)), tuple("abcd"))


class ColourNet(nn.Module):
    """The feature maps are how much a pixel's own channel stands out of the others; the scores are their averages."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True))
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.features[0].weight.copy_((2 * torch.eye(3) - 1).view(3, 3, 1, 1))
            self.features[0].bias.fill_(0.2)
            self.head.weight.copy_(torch.eye(3) * 30)
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x).mean((2, 3)))
        return scores


def factory() -> cs.Classifier:
    """What ``workshop:factory`` loads."""
    return cs.wrap(ColourNet(), cs.Preprocess(SIDE, (0.0,) * 3, (1.0,) * 3), labels=list(COLOURS))


def square(colour: str, seed: int) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A square of one colour on noisy grey, and its box (x0, y0, x1, y1)."""
    rng = np.random.default_rng(seed)
    a = rng.integers(100, 130, (48, 48, 1)).repeat(3, 2).astype(np.uint8)
    x, y = rng.integers(0, 24, 2)
    a[y : y + 24, x : x + 24] = [220 if c == colour else 30 for c in COLOURS]
    return Image.fromarray(a), (int(x), int(y), int(x) + 24, int(y) + 24)


def lay_out(folder: Path, per_class: int = 4, *, mislabelled: bool = True) -> None:
    """photos/ (class/n.png), boxes.json (COCO) and net.py in a folder.  One red picture is filed under green."""
    images, annotations = [], []
    for k, colour in enumerate(COLOURS):
        for i in range(per_class):
            picture, (x0, y0, x1, y1) = square(colour, 100 * k + i)
            home = "green" if mislabelled and colour == "red" and i == 0 else colour
            path = folder / "photos" / home / f"{colour}{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            images.append({"id": len(images), "file_name": f"{home}/{path.name}", "width": 48, "height": 48})
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"id": len(images), "image_id": len(images) - 1, "category_id": k, "bbox": box})
    categories = [{"id": k, "name": c} for k, c in enumerate(COLOURS)]
    (folder / "boxes.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (folder / "net.py").write_text("from workshop import factory\n")
