"""The hash that names the weights of a network in every result, worked out while the network is at work.

It takes longer than a pass of a small network, once for each state of its weights.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

from clearsight.core.processors import processors
from clearsight.core.weight_digest import Digest, digest_now, weight_digest

WORTH = 2**20  # bytes of weights from which on another thread pays

Parts = list[tuple[bytes, Tensor | None]]


class _Aside(NamedTuple):
    """A hash that is being worked out: of which network, and in which state that was then."""

    net: nn.Module
    digest: Digest
    hash: Future[str]


_hashes: weakref.WeakKeyDictionary[nn.Module, tuple[Digest, str]] = weakref.WeakKeyDictionary()
_aside: ContextVar[_Aside | None] = ContextVar("aside", default=None)


def known_hash(net: nn.Module) -> str:
    """16 hex digits of the SHA-256 over the names and values of all weights and buffers, once for each state."""
    digest = weight_digest(net)
    known = _hashes.get(net)
    if known is None or known[0] != digest:
        known = _hashes[net] = digest, _made_aside(net, digest) or hash_of(_parts(net))
    return known[1]


@contextmanager
def hashed_aside(net: nn.Module) -> Iterator[None]:
    """Inside, another thread works out the hash of these weights, if it is not known and there is a processor for it.

    It counts for the weights as they were when this began: `known_hash` looks whether they still are.
    """
    digest = weight_digest(net)
    known = _hashes.get(net)
    parts = [] if (known is not None and known[0] == digest) or processors() < 2 else _parts(net)
    if not parts or sum(t.nbytes for _, t in parts if t is not None and t.is_cpu) < WORTH:
        yield
        return
    pool = ThreadPoolExecutor(1)
    token = _aside.set(_Aside(net, digest, pool.submit(hash_of, parts)))
    try:
        yield
    finally:
        _aside.reset(token)
        pool.shutdown()


def _made_aside(net: nn.Module, digest: Digest) -> str | None:
    """The hash by the other thread; None where there is none, or the weights are others by now."""
    aside = _aside.get()
    if aside is None or aside.net is not net or aside.digest != digest:
        return None
    found = aside.hash.result()
    return found if digest_now(net) == digest else None


def _parts(net: nn.Module) -> Parts:
    return [
        (name.replace("_orig_mod.", "").encode(), value if isinstance(value, Tensor) else None)  # compiled or not
        for name, value in net.state_dict().items()
    ]


def hash_of(parts: Parts) -> str:
    h = hashlib.sha256()
    for name, value in parts:
        h.update(name)
        if value is not None:
            h.update(f"{value.dtype}{tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            flat = flat.as_strided(flat.shape, (1,))  # a single value may be contiguous with another stride
            h.update(flat.view(torch.uint8).numpy().data)  # not copied
    return h.hexdigest()[:16]
