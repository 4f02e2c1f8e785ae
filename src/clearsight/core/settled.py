"""What is worked out once for a network while one call works on it and nobody changes it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")


@dataclass(eq=False)
class _Settled:
    """A network that is taken not to change, and what was found of it since."""

    net: nn.Module
    found: dict[Hashable, Any] = field(default_factory=dict)


_settled: ContextVar[_Settled | None] = ContextVar("settled", default=None)


@contextmanager
def settled(net: nn.Module) -> Iterator[None]:
    """Inside, the network is taken not to change: what `while_settled` finds of it is found once."""
    now = _settled.get()
    token = _settled.set(now if now is not None and now.net is net else _Settled(net))
    try:
        yield
    finally:
        _settled.reset(token)


def while_settled(net: nn.Module, key: Hashable, find: Callable[[], T]) -> T:
    """What find gives; while the network is settled, what it gave the first time."""
    now = _settled.get()
    if now is None or now.net is not net:
        return find()
    if key not in now.found:
        now.found[key] = find()
    known: T = now.found[key]
    return known


def tell(net: nn.Module, key: Hashable, found: object) -> None:
    """Tell what `while_settled` would find of a network, where it is settled and was not asked yet."""
    now = _settled.get()
    if now is not None and now.net is net:
        now.found.setdefault(key, found)
