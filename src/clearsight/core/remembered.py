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
_Task = tuple[int, _Memory]  # its number, and what is remembered for it
_tasks: ContextVar[tuple[_Task, ...]] = ContextVar("tasks", default=())  # those that go on, inmost last
_numbers = itertools.count(1)
_elsewhere: dict[int, _Memory] = {}  # of tasks of another process, on which this one works, by number


@contextmanager
def remembering() -> Iterator[None]:
    """Inside, networks are taken not to change, and what `once` made of them is made once."""
    token = _tasks.set((*_tasks.get(), (next(_numbers), weakref.WeakKeyDictionary())))
    try:
        yield
    finally:
        _tasks.reset(token)


def tasks() -> tuple[int, ...]:
    """The numbers of the tasks for which things are remembered, the inmost last."""
    return tuple(number for number, _ in _tasks.get())


@contextmanager
def remembering_for(numbers: tuple[int, ...]) -> Iterator[None]:
    """Like `remembering`, for parts of tasks of another process: they remember together while these tasks go on."""
    for number in _elsewhere.keys() - {*numbers}:
        del _elsewhere[number]
    token = _tasks.set(tuple((n, _elsewhere.setdefault(n, weakref.WeakKeyDictionary())) for n in numbers))
    try:
        yield
    finally:
        _tasks.reset(token)


def once(net: nn.Module, key: object, make: Callable[[], T], *, longest: bool = False) -> T:
    """What make gives: inside `remembering`, for the same network and key, what it gave the first time.

    longest: keep it while the outermost of the tasks goes on, not only while this one does.
    """
    going_on = _tasks.get()
    if not going_on:
        return make()
    known = going_on[0 if longest else -1][1].setdefault(net, {})
    if key not in known:
        known[key] = make()
    found: T = known[key]
    return found


def digest(x: Tensor) -> bytes:
    """A hash of the values of a tensor, for a key."""
    return hashlib.sha1(x.detach().cpu().contiguous().numpy().data, usedforsecurity=False).digest()
