"""What is worked out once for a network and asked for by many: kept while a task goes on, and no longer."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")
_Memory = weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]]
_memories: ContextVar[tuple[_Memory, ...]] = ContextVar("memories", default=())  # of the tasks that go on, inmost last


@contextmanager
def remembering() -> Iterator[None]:
    """Inside, networks are taken not to change, and what `once` made of them is made once."""
    token = _memories.set((*_memories.get(), weakref.WeakKeyDictionary()))
    try:
        yield
    finally:
        _memories.reset(token)


def once(net: nn.Module, key: object, make: Callable[[], T], *, longest: bool = False) -> T:
    """What make gives: inside `remembering`, for the same network and key, what it gave the first time.

    longest: keep it while the outermost of the tasks goes on, not only while this one does.
    """
    memories = _memories.get()
    if not memories:
        return make()
    known = memories[0 if longest else -1].setdefault(net, {})
    if key not in known:
        known[key] = make()
    found: T = known[key]
    return found


def digest(x: Tensor) -> bytes:
    """A hash of the values of a tensor, for a key."""
    return hashlib.sha1(x.detach().cpu().contiguous().numpy().data, usedforsecurity=False).digest()
