"""Networks of the field with random weights, small enough to run, and what every explainer makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.taking import takes_kind
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.runner.run import explain

NAMES = (
    "alexnet", "vgg16_bn", "googlenet", "inception_v3", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2",
    "densenet121", "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0",
    "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t",
)  # fmt: skip
EXPLAINERS = tuple(n for n, m in catalogue("explainers").items() if takes_kind(m, "classifier"))
# few steps and masks: whether a method runs, not how well it does
FEW = {"samples": 8, "steps": 4, "masks": 8, "iterations": 3, "window": 32, "cells": 3, "most": 1.0}


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """Three sizes of pictures (height, width) that the network takes.

    Strides of 32 divide the first alone, and the last is no square; a ViT takes squares of whole patches only.
    """
    if name == "vit_b_16":
        return (64, 64), (80, 80), (96, 96)
    return ((128, 128), (139, 139), (150, 134)) if name == "inception_v3" else ((64, 64), (72, 72), (90, 74))


def network(name: str, size: tuple[int, int] | None = None, seed: int = 0) -> Classifier:
    """The network of torchvision's name, with five classes, for pictures of that size; of its first one by default.

    Random weights alone let signals vanish on the way, so BatchNorm gets its statistics from noise, and heads that
    begin at zero are drawn.
    """
    size = size or sizes(name)[0]
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    extra |= {"image_size": size[0]} if name == "vit_b_16" else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = torchvision.models.get_model(name, weights=None, num_classes=5, **extra).eval()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.train()
                m.momentum = None
            if isinstance(m, nn.Linear) and not bool(m.weight.any()):
                nn.init.normal_(m.weight, std=0.05)
        with torch.no_grad():
            net(torch.randn(8, 3, *size))
    return Classifier(net.eval(), Preprocess(size, (0.5,) * 3, (0.25,) * 3), tuple("abcde"), name)


def pictures(model: Classifier) -> Tensor:
    """One picture for it, once for each class: smooth colours with noise."""
    g = torch.Generator().manual_seed(1)
    low = torch.rand(1, 3, 4, 4, generator=g)
    smooth = nn.functional.interpolate(low, model.preprocess.size, mode="bilinear")
    noisy = (smooth + 0.1 * torch.rand(smooth.shape, generator=g)).clamp(0, 1)
    return noisy.repeat(len(model.labels), 1, 1, 1)


def references(folder: Path) -> Path:
    """A folder of pictures to compare with, for the methods that need one."""
    folder.mkdir(exist_ok=True)
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def spelled(name: str, folder: Path) -> str:
    """A method with few steps, and with a folder of references where it wants one."""
    options = catalogue("explainers")[name].options
    words = [f"{k}={v}" for k, v in FEW.items() if k in options]
    words += [f'references="{folder}"'] if "references" in options and options["references"].default == "" else []
    return f"{name}({', '.join(words)})"


def outcome(model: Classifier, name: str, folder: Path) -> str:
    """ "works", or why the method is refused.  Anything else is an error."""
    x = pictures(model)
    said = False
    for classes in ([0, 1], [2, 3, 4]):  # rectified maps of some classes may be empty, those of all may not
        try:
            e = explain(model, x[classes], spelled(name, folder), ClassScore(classes))
        except Refused as refused:
            return str(refused).replace(model.source, "the network").replace(str(folder), "FOLDER")
        assert e.maps.shape == (len(classes), *model.preprocess.size)
        assert e.maps.isfinite().all()
        said = any(bool(m.max() > m.min()) for m in e.maps)
        if said:
            break
    assert said, f"{name} says nothing of any class of {model.source}"
    return "works"
