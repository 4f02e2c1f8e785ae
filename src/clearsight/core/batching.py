"""One batcher for everything that needs many versions of each picture (steps, masks, noise), of bounded memory."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.fastest_order import in_fastest_order
from clearsight.core.likeness import likeness
from clearsight.core.memory import free_one_block
from clearsight.core.model import Model
from clearsight.core.passes import uncounted

SIZE = 16  # pictures in one pass through a network of the usual size: the fastest on the processors measured
MOST = 256  # the same through a small network, whose passes cost little beside the steps between them
SMALL = 32 * 2**20  # bytes that the pictures of such a pass keep for its way back
BYTES = 500 * 2**20  # what a pass may keep for its way back; what it works in comes on top, and stays below 1 GB

_size: ContextVar[int] = ContextVar("size", default=SIZE)  # with a way back
_one_way: ContextVar[int] = ContextVar("one_way", default=SIZE)
_KINDS = 32  # of networks and sizes of picture that are remembered
kept_alike: OrderedDict[tuple[Any, ...], int] = OrderedDict()
_bytes_kept: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]] = weakref.WeakKeyDictionary()


def at_once(*, backward: bool = False) -> int:
    """How many pictures go through the network that is worked on at once; backward: and their gradients back."""
    return min(_one_way.get(), _size.get()) if backward else _one_way.get()


def pairs(
    pictures: int, versions: int, size: int | None = None, *, backward: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """All (picture, version) pairs, at most ``size`` at a time, picture by picture.

    size: None for as many as suit the network.  backward: each pass is followed by its way back, for which the
    network's inner values are kept: fewer at a time, where the network is so large that they would not fit.

    >>> [(r.tolist(), v.tolist()) for r, v in pairs(2, 3, 4)]
    [([0, 0, 0, 1], [0, 1, 2, 0]), ([1, 1], [1, 2])]
    """
    size = at_once() if size is None else size
    size = min(size, at_once(backward=True)) if backward else size
    for start in range(0, pictures * versions, size):
        k = torch.arange(start, min(start + size, pictures * versions))
        yield k // versions, k % versions


@contextmanager
def bounded(model: Model, x: Tensor, size: int | None) -> Iterator[int]:
    """How many pictures, at most size, may go forward and back at once: as many as BYTES hold, at least one.

    size: None for SIZE, or up to MOST where the network is so small that they keep no more than SMALL.  x (1, C, *S) is
    run once for each network and size of picture, to see what it keeps.  A network that keeps less than the picture
    itself does its work where that is not seen, as an engine for exported files does, and gets SIZE.  Inside, pictures
    lie in memory as is fastest for the network (see fastest_order.py).  What passes of a small network free stays with
    the process (see free_one_block).
    """
    by_shape = _bytes_kept.setdefault(model.net, {})
    shape = tuple(x.shape[1:])
    if shape not in by_shape:
        by_shape[shape] = _kept_by_its_kind(model, x[:1])
    seen = by_shape[shape] >= x[:1].nbytes
    kept = max(by_shape[shape], 1)
    usual = max(SIZE, min(MOST, SMALL // kept)) if seen else SIZE
    most = usual if size is None else size
    size = max(1, min(most, BYTES // kept))
    if most > SIZE:
        free_one_block()
    token, token_one_way = _size.set(size), _one_way.set(max(SIZE, most))
    try:
        with in_fastest_order(model, x):
            yield size
    finally:
        _size.reset(token)
        _one_way.reset(token_one_way)


def _kept_by_its_kind(model: Model, x: Tensor) -> int:
    """What a pass of x (1, C, *S) keeps, seen once for networks that differ in the values of their weights alone."""
    alike = likeness(model.net)
    key = (alike.key, alike.hidden, tuple(x.shape), x.device, model.channels_last)
    if alike.certain and key in kept_alike:
        return kept_alike[key]
    with uncounted():
        kept = bytes_kept(model, x)
    if alike.certain:
        kept_alike[key] = kept
        while len(kept_alike) > _KINDS:
            kept_alike.popitem(last=False)
    return kept


def bytes_kept(model: Model, x: Tensor) -> int:
    """Bytes that a forward pass of x keeps for its way back, parameters and buffers apart."""
    weights = {p.untyped_storage().data_ptr() for p in (*model.net.parameters(), *model.net.buffers())}
    storages: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return t

    def unpack(t: Any) -> Any:
        return t

    z = x.detach().clone().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        out = model(z)
    del out
    return sum(storages.values())
