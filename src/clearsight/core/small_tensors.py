"""Many small tensors as one: most of a network's tensors hold a few numbers, and each step with one takes as long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SMALL = 2**14  # values


def grouped(tensors: Iterable[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Small dense tensors by type and device, and all the others."""
    groups: dict[object, list[Tensor]] = {}
    others: list[Tensor] = []
    for t in tensors:
        if t.numel() > SMALL or t.layout != torch.strided or t.is_quantized:
            others.append(t)
        else:
            groups.setdefault(t.dtype if t.is_cpu else (t.dtype, t.device), []).append(t)
    return list(groups.values()), others


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """The values of tensors of one type, one after the other, as a copy (n,)."""
    with torch.no_grad():
        return torch.cat([t if t.dim() == 1 else t.reshape(-1) for t in tensors])
