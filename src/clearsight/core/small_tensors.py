"""Many small tensors as one: most of a network's tensors hold a few numbers, and each step with one takes as long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

import torch
from torch import Tensor

SMALL = 2**14  # values

_HOW = attrgetter("layout", "is_quantized", "dtype", "is_cpu")


def grouped(tensors: Iterable[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Small dense tensors by type and device, and all the others."""
    tensors = [*tensors]
    groups: dict[object, list[Tensor]] = {}
    others: list[Tensor] = []
    rows = zip(tensors, map(Tensor.numel, tensors), map(_HOW, tensors), strict=True)
    for t, n, (layout, quantised, kind, on_cpu) in rows:
        if n > SMALL or layout is not torch.strided or quantised:
            others.append(t)
        else:
            groups.setdefault(kind if on_cpu else (kind, t.device), []).append(t)
    return list(groups.values()), others


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """The values of tensors of one type, one after the other, as a copy (n,)."""
    with torch.no_grad():
        return torch.cat([t if t.dim() == 1 else t.reshape(-1) for t in tensors])
