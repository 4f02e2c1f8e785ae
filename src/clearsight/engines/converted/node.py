"""One operation of an ONNX graph, as what makes a torch layer of it needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[Any]


class Unknown(Exception):  # noqa: N818 (it reads as what happened: raise Unknown)
    """An operation that is not known here, or not in this form; the text says which."""


@dataclass(frozen=True)
class Node:
    """An operation of a graph.

    kind: its operator, "Conv"; attributes: as the file gives them; inputs: the names of what goes in, "" where an input
    is left out; constants: of each input its value, None where it depends on the picture; axes: how many axes the first
    input has, 0 where that is not known.
    """

    kind: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    constants: tuple[Array | None, ...]
    axes: int = 0

    def constant(self, i: int) -> Array | None:
        """The value of input i; None where there is none, or none that is known before the pictures are."""
        return self.constants[i] if i < len(self.constants) else None

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and bool(self.inputs[i])


@dataclass(frozen=True)
class Built:
    """A torch layer for a node, of which only the first input goes in; before: what is done to that input first."""

    layer: nn.Module
    before: Callable[[Tensor], Tensor] | None = None


def parameter(values: Array) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(values)))
