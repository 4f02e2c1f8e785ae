"""Which weights a network holds now: a fast hash over all their bytes, by which every change of them is noticed.

Counters of writes do not tell: what is written through ``.data`` or NumPy raises none of them.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from xxhash import xxh3_128

from clearsight.core.module_names import every_name, listed
from clearsight.core.settled import while_settled
from clearsight.core.small_tensors import grouped, joined

Digest = tuple[tuple[Any, ...], bytes]  # what each tensor is called and how it lies, and the hash of all values

_AS_THEY_ARE = frozenset({torch.float32, torch.float64, torch.int64})  # NumPy has the type, and the array is the bytes


def weight_digest(net: nn.Module) -> Digest:
    """The names, types and shapes of all weights and buffers of a network, and a hash of their values.

    It is XXH3 (Y. Collet, https://xxhash.com), which reads as fast as the memory gives: equal for equal weights, other
    for any others that nobody made in order to deceive it.
    """
    return while_settled(net, "digest", lambda: _digest(net))


def _digest(net: nn.Module) -> Digest:
    about, tensors = _tensors(net)
    about += [t.dtype if isinstance(t, Tensor) else None for t in tensors]
    tensors = [t for t in tensors if isinstance(t, Tensor)]
    about += [t.shape for t in tensors]
    groups, others = grouped(tensors)
    values = xxh3_128()
    for t in (*map(joined, groups), *others):
        try:
            values.update(_bytes(t))
        except (RuntimeError, TypeError, ValueError):  # quantised, sparse or without values: where it lies, and since
            about.append((t.data_ptr() if t.layout == torch.strided else id(t), version(t)))
    return tuple(about), values.digest()


def _tensors(net: nn.Module) -> tuple[list[Any], list[Any]]:
    """Every parameter and buffer, or None in its place, and how the modules and they themselves are called.

    And what else `state_dict` gives, where a module says by itself what that is.
    """
    called = every_name(net)
    modules = [m for _, m in called]
    mappings = [*chain.from_iterable(map(attrgetter("_parameters", "_buffers"), modules))]
    names, tensors, sizes = listed(mappings)
    about: list[Any] = [*(name for name, _ in called), *sizes, *names]
    hooks = chain.from_iterable(map(attrgetter("_state_dict_hooks", "_state_dict_pre_hooks"), modules))
    if any(map(_saves_otherwise, {*map(type, modules)})) or any(hooks):
        saved = net.state_dict()
        about += saved.keys()
        tensors += saved.values()
    return about, tensors


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
