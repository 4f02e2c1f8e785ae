"""ReLUs in a recorded network."""

from __future__ import annotations

import torch
from torch import fx

from clearsight.internals.graph import word

RELUS = ("relu", "hardtanh", "clamp", "clamp_min", "threshold")


def open_range(node: fx.Node) -> tuple[float, float] | None:
    """Between which values a node lets its input through, where it is a ReLU or a ReLU6; None where it is neither."""
    name, arguments = word(node), (*node.args[1:], None, None)
    if name == "relu" or (name == "threshold" and arguments[:2] == (0, 0)):
        return 0.0, torch.inf
    low, high = (node.kwargs.get("min", arguments[0]), node.kwargs.get("max", arguments[1]))
    if name in ("hardtanh", "clamp", "clamp_min") and isinstance(low, int | float) and low == 0:
        return 0.0, float(high) if isinstance(high, int | float) else torch.inf
    return None
