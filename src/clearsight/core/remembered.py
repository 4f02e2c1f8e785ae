"""What is worked out once for a network and asked for by many: kept while a task goes on, and no longer."""

from __future__ import annotations

import hashlib
import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")
_Memory = weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]]
_memory: ContextVar[_Memory | None] = ContextVar("memory", default=None)
_task: ContextVar[int] = ContextVar("task", default=0)
_tasks = itertools.count(1)
_shared: dict[int, _Memory] = {}  # of the task of another process on which this one works


@contextmanager
def remembering() -> Iterator[None]:
    """Inside, networks are taken not to change, and what `once` made of them is made once."""
    token = _memory.set(weakref.WeakKeyDictionary())
    token_task = _task.set(next(_tasks))
    try:
        yield
    finally:
        _memory.reset(token)
        _task.reset(token_task)


def task() -> int:
    """The number of the task for which things are remembered; 0 where they are not."""
    return _task.get()


@contextmanager
def remembering_for(number: int) -> Iterator[None]:
    """Like `remembering`, for parts of one task of another process: they remember together, until the next task."""
    if number not in _shared:
        _shared.clear()
    memory = _shared.setdefault(number, weakref.WeakKeyDictionary()) if number else None
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def once(net: nn.Module, key: object, make: Callable[[], T]) -> T:
    """What make gives: inside `remembering`, for the same network and key, what it gave the first time."""
    memory = _memory.get()
    if memory is None:
        return make()
    known = memory.setdefault(net, {})
    if key not in known:
        known[key] = make()
    found: T = known[key]
    return found


def digest(x: Tensor) -> bytes:
    """A hash of the values of a tensor, for a key."""
    return hashlib.sha1(x.detach().cpu().contiguous().numpy().data, usedforsecurity=False).digest()
