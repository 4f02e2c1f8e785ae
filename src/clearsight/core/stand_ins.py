"""What gives a network's scores in its place for a while: faster, the same up to rounding, without a way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

StandIn = Callable[[Tensor], Tensor | None]  # normalised pictures (B, C, *S) -> logits (B, K), or None: ask the network

_standing_in: ContextVar[tuple[nn.Module, StandIn] | None] = ContextVar("standing_in", default=None)


@contextmanager
def standing_in(net: nn.Module, run: StandIn) -> Iterator[None]:
    """Inside, run is asked first for the logits of pictures that need no gradient."""
    token = _standing_in.set((net, run))
    try:
        yield
    finally:
        _standing_in.reset(token)


def outputs_instead(net: nn.Module, z: Tensor) -> Tensor | None:
    """The logits (B, K) of normalised pictures z (B, C, *S) from what stands in for the network; None from nobody."""
    current = _standing_in.get()
    return current[1](z) if current is not None and current[0] is net and not z.requires_grad else None
