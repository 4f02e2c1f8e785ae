"""Pictures lie in memory as is fastest for a network, where it gives the same for them (see memory_order.py)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.core.contents import settled_contents
from clearsight.core.likeness import likeness
from clearsight.core.memory_order import laying_last
from clearsight.core.model import Model
from clearsight.core.passes import is_hooked, uncounted
from clearsight.core.way_back import is_of_others, operations_behind
from clearsight.errors import Refused

LEAST = 1024  # places of a picture, from which on it is looked at: smaller ones fit into a cache
CONVOLUTIONS = 3  # of a network, from which on: one that only cuts a picture into patches gains nothing
_SAME = 1e-4  # of the largest output: how far those of pictures that lie in another order may be from the others
_KINDS = 32  # of networks and sizes of picture that are remembered

laid_alike: OrderedDict[tuple[Any, ...], bool] = OrderedDict()


@contextmanager
def in_fastest_order(model: Model, x: Tensor) -> Iterator[None]:
    """Inside, the network is given pictures shaped like x (B, C, H, W) with their channels last, where it may be.

    That depends on what kind of network it is, on the shape and on the device, never on what was run before.
    """
    if not may_lie_last(model, x):
        yield
        return
    with laying_last(model.net, x.shape[1:]):
        yield


def may_lie_last(model: Model, x: Tensor) -> bool:
    """Whether a network gives the same for pictures shaped like x (B, C, H, W) whose channels lie last.

    Seen once for networks that differ in the values of their weights alone, by two passes of two pictures of noise.
    False for networks with hooks or that may be more than Python shows, for those with few convolutions, for single
    channels and small pictures, and on other devices and in other types than float32 on the CPU.
    """
    if model.channels_last or x.dim() != 4 or x.shape[1] == 1 or x.shape[2:].numel() < LEAST:
        return False
    held = settled_contents(model.net)
    if x.device.type != "cpu" or {x.dtype, *(p.dtype for p in held.parameters)} != {torch.float32}:
        return False
    if any(p.device != x.device for p in held.parameters) or _convolutions(held.modules) < CONVOLUTIONS:
        return False
    if is_hooked(held.modules):
        return False
    alike = likeness(model.net)
    if not alike.certain:
        return False
    key = (alike.key, alike.hidden, tuple(x.shape[1:]), model.reading)
    if key not in laid_alike:
        with uncounted(), rng.seeded(0, x[:1]):
            laid_alike[key] = _gives_the_same(model, x)
        while len(laid_alike) > _KINDS:
            laid_alike.popitem(last=False)
    return laid_alike[key]


def _convolutions(modules: list[nn.Module]) -> int:
    return sum(isinstance(m, nn.Conv2d) for m in modules)


def _gives_the_same(model: Model, x: Tensor) -> bool:
    """Whether the outputs of two pictures of noise are the same, and come about without functions of the network's own.

    What such a function does on the way back is not seen here.
    """
    noise = torch.rand((2, *x.shape[1:]), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            wanted = model(noise)
        z = noise.requires_grad_()
        with torch.enable_grad(), laying_last(model.net, x.shape[1:]):
            found = model(z)
    except (Refused, RuntimeError):
        return False
    if any(map(is_of_others, operations_behind(found))):
        return False
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= _SAME * wanted.abs().max())
