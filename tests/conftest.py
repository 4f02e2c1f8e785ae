"""Small real networks and pictures that several tests share."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded in tests

import pytest
import torch
from torch import Tensor, nn

from clearsight.classifier import Classifier, Preprocess


@pytest.fixture
def small() -> Classifier:
    """A convolutional network with BatchNorm, in training mode, its parameters wanting gradients."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    return Classifier(net.train(), Preprocess((16, 24), (0.5,) * 3, (0.25,) * 3), tuple("abcde"), "small")


@pytest.fixture
def x() -> Tensor:
    """Four pictures for it, (4, 3, 16, 24)."""
    return torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))
