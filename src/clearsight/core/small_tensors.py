"""Many small tensors as one: most of a network's tensors hold a few numbers, and each step with one takes as long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

SMALL = 2**14  # values

_HOW = tuple(map(attrgetter, ("dtype", "shape", "layout", "is_cpu")))


@dataclass(frozen=True)
class Grouping:
    """How tensors lie, and which of them go together, by their numbers: small dense ones of one type and device.

    lie: of all their types, their shapes, their layouts, and whether each is on the CPU.  groups: those that go
    together; others: the rest.
    """

    lie: tuple[tuple[Any, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]

    def joined(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The values of each group of the tensors, see `joined`."""
        return [joined([*map(tensors.__getitem__, group)]) for group in self.groups]

    def rest(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that are in no group."""
        return [*map(tensors.__getitem__, self.others)]


def grouping(tensors: Sequence[Tensor], known: Grouping | None = None) -> Grouping:
    """How these tensors lie and go together; known: that of before, which is given back where it still holds."""
    lie = (*[(*map(how, tensors),) for how in _HOW],)
    if known is not None and known.lie == lie and all(lie[3]):
        return known
    groups: dict[object, list[int]] = {}
    others: list[int] = []
    for i, (t, kind, shape, layout, on_cpu) in enumerate(zip(tensors, *lie, strict=True)):
        if shape.numel() > SMALL or layout is not torch.strided or t.is_quantized:
            others.append(i)
        else:
            groups.setdefault(kind if on_cpu else (kind, t.device), []).append(i)
    return Grouping(lie, (*map(tuple, groups.values()),), (*others,))


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """The values of tensors of one type, one after the other, as a copy (n,)."""
    axes = {*map(Tensor.dim, tensors)}
    with torch.no_grad():
        if axes == {0}:
            return torch.stack([*tensors])
        if axes == {1}:
            return torch.cat([*tensors])
        return torch.cat([t if t.dim() == 1 else t.reshape(-1) for t in tensors])
