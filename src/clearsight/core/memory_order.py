"""How pictures lie in memory: one channel after the other, or with the channels of each place together, last.

Convolutions on a processor work on the second order, and bring pictures that lie in the first one into it and back
each time.  A picture whose channels lie last at the start stays so through a whole network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_laid: ContextVar[tuple[nn.Module, torch.Size] | None] = ContextVar("laid", default=None)


def lies_last(x: Tensor) -> bool:
    """Whether the channels of maps x (B, C, H, W) lie last, and not also one after the other."""
    with torch._C.DisableTorchFunction():  # who sees what is called need not see each of these
        return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def last(x: Tensor) -> Tensor:
    """The same pictures x (B, C, H, W), whose channels lie last."""
    return x.contiguous(memory_format=torch.channels_last)


@contextmanager
def laying_last(net: nn.Module, shape: torch.Size) -> Iterator[None]:
    """Inside, a network is given pictures of one shape (C, H, W) with their channels last."""
    token = _laid.set((net, shape))
    try:
        yield
    finally:
        _laid.reset(token)


def is_laid_last(net: nn.Module, z: Tensor) -> bool:
    """Whether a network is given pictures z (B, C, H, W) with their channels last.

    Not while its run is written down: what is recorded is the same wherever that is done.
    """
    laid = _laid.get()
    if laid is None or laid[0] is not net or z.shape[1:] != laid[1]:
        return False
    return torch._C._functorch.maybe_current_level() is None
