"""A network in evaluation mode for a moment, in the middle of its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode and its weights have no gradient; both are given back as they were."""
    modes = [(m, m.training) for m in net.modules()]
    learning = [p for p in net.parameters() if p.requires_grad]
    net.eval()
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)
        for m, training in modes:
            m.training = training
