"""Detectors with random weights whose outputs tell places and classes apart, as those of trained ones do."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def as_if_trained(net: Any, shape: tuple[int, ...]) -> Any:
    """The network in eval mode: BatchNorm knows its inputs, and convolutions that begin near 0 keep the variance."""
    draws = torch.Generator().manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.Conv2d) and m.weight.std() < 0.02:
            nn.init.kaiming_normal_(m.weight, generator=draws)
    norms = [m.train() for m in net.eval().modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(4, *shape, generator=draws))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    return net.eval()
