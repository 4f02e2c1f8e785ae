"""Which weights a network holds now: a fast hash over all their bytes, by which every change of them is noticed.

Counters of writes do not tell: what is written through ``.data`` or NumPy raises none of them.
"""

from __future__ import annotations

import weakref
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from xxhash import xxh3_128

from clearsight.core.contents import Contents, contents, joined_buffers, settled_contents
from clearsight.core.settled import while_settled
from clearsight.core.small_tensors import grouping

Digest = tuple[tuple[Any, ...], bytes]  # what each tensor is called and how it lies, and the hash of all values

_AS_THEY_ARE = frozenset({torch.float32, torch.float64, torch.int64})  # NumPy has the type, and the array is the bytes

_last: weakref.WeakKeyDictionary[nn.Module, Digest] = weakref.WeakKeyDictionary()


def weight_digest(net: nn.Module) -> Digest:
    """The names, types and shapes of all weights and buffers of a network, and a hash of their values.

    It is XXH3 (Y. Collet, https://xxhash.com), which reads as fast as the memory gives: equal for equal weights, other
    for any others that nobody made in order to deceive it.
    """
    return while_settled(net, "digest", lambda: _known_digest(net))


def _known_digest(net: nn.Module) -> Digest:
    """The digest; where it is the last one again, that very object, which whoever kept it need not compare."""
    digest, last = _digest(net, settled_contents(net), joined_buffers(net)), _last.get(net)
    if last == digest:
        return last
    _last[net] = digest
    return digest


def digest_now(net: nn.Module) -> Digest:
    """The digest of what a network holds now, also where it is taken not to change."""
    held = contents(net)
    return _digest(net, held, held.grouped_buffers.joined(held.buffers))


def _digest(net: nn.Module, held: Contents, buffers_joined: list[Tensor]) -> Digest:
    others_saved = _saved_otherwise(net, held)
    more = [t for t in others_saved.values() if isinstance(t, Tensor)]
    parameters, buffers, saved = held.grouped_parameters, held.grouped_buffers, grouping(more)
    about: list[Any] = [held.structure.key, *others_saved, parameters.lie, buffers.lie, saved.lie]
    small = [*parameters.joined(held.parameters), *buffers_joined, *saved.joined(more)]
    large = [*parameters.rest(held.parameters), *buffers.rest(held.buffers), *saved.rest(more)]
    values = xxh3_128()
    for t in chain(small, large):
        try:
            values.update(_bytes(t))
        except (RuntimeError, TypeError, ValueError):  # quantised, sparse or without values: where it lies, and since
            about.append((t.data_ptr() if t.layout == torch.strided else id(t), version(t)))
    return tuple(about), values.digest()


def _saved_otherwise(net: nn.Module, held: Contents) -> dict[str, Any]:
    """What `state_dict` gives, where a module says by itself what that is; else nothing."""
    if any(map(_saves_otherwise, held.types)) or any(held.saving_hooks):
        return net.state_dict()
    return {}


@cache
def _saves_otherwise(kind: type[nn.Module]) -> bool:
    """Whether modules of a class say by themselves what is saved of them."""
    own = ("state_dict", "_save_to_state_dict", "get_extra_state")
    return issubclass(kind, torch.jit.ScriptModule) or any(getattr(kind, n) is not getattr(nn.Module, n) for n in own)


def _bytes(t: Tensor) -> Any:
    """The values as an array in their own order, copied only where they do not lie in one piece."""
    if t.requires_grad or not t.is_cpu:
        t = t.detach().cpu()
    if not t.is_contiguous():
        t = t.contiguous()
    if t.dtype in _AS_THEY_ARE:
        return t.numpy()
    flat = t.reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # a single value may be contiguous with another stride
    return flat.view(torch.uint8).numpy()


def version(t: Tensor) -> int:
    """How often a tensor was written to; -1 where that is not counted."""
    return -1 if t.is_inference() else t._version
