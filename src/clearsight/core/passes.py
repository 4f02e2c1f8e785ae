"""How many pictures went through a network, forwards and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core import deadline


@dataclass
class Passes:
    """through: of the backwards those through the network itself, not through what was recorded of it."""

    forwards: int = 0
    backwards: int = 0
    through: int = 0
    of: nn.Module | None = None


class _Count:
    """A forward hook that counts; in a copy of the network for another process it does nothing."""

    def __init__(self, passes: Passes | None = None) -> None:
        self.passes = passes

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], _out: Any) -> None:
        if self.passes is not None and any(p is self.passes for p in _open.get()):
            self.passes.forwards += len(args[0])

    def __reduce__(self) -> tuple[type[_Count], tuple[()]]:
        return _Count, ()


def counts(hook: object) -> bool:
    """Whether a forward hook does nothing but count."""
    return isinstance(hook, _Count)


def is_hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether anything is called when one of the modules runs, other than to count: a hook, or a forward of its own."""
    return any(
        m._forward_pre_hooks or any(not counts(h) for h in m._forward_hooks.values()) or "forward" in vars(m)
        for m in modules
    )


_open: ContextVar[tuple[Passes, ...]] = ContextVar("open", default=())


@contextmanager
def counted(net: nn.Module) -> Iterator[Passes]:
    """Count the pictures that go through the network, and through what was recorded of it (see graph.py)."""
    passes = Passes(of=net)
    handle = None if isinstance(net, torch.jit.ScriptModule) else net.register_forward_hook(_Count(passes))
    token = _open.set((*_open.get(), passes))
    try:
        yield passes
    finally:
        _open.reset(token)
        if handle is not None:
            handle.remove()


def note_of(net: nn.Module, out: Tensor, forwards: int = 0) -> None:
    """Count pictures when a gradient comes back to a network's scores; forwards: that no hook has counted."""
    deadline.look()
    for passes in _open.get():
        if passes.of is net:
            passes.forwards += forwards
            _count_backward(passes, out, through_network=True)


@contextmanager
def uncounted() -> Iterator[None]:
    """Passes inside are not counted: those that record the network or measure it once."""
    token = _open.set(())
    try:
        yield
    finally:
        _open.reset(token)


def note_elsewhere(net: nn.Module, there: Passes) -> None:
    """Count what went through a copy of the network in another process."""
    deadline.look()
    for passes in _open.get():
        if net is passes.of:
            passes.forwards += there.forwards
            passes.backwards += there.backwards
            passes.through += there.through


def note(forwards: int, backwards: int = 0) -> None:
    """Count pictures that went through what was recorded of the network."""
    deadline.look()
    for passes in _open.get():
        passes.forwards += forwards
        passes.backwards += backwards


def await_back(out: Tensor) -> None:
    """Count pictures when a gradient comes back to out (B, ...)."""
    for passes in _open.get():
        _count_backward(passes, out)


def _count_backward(passes: Passes, out: Tensor, *, through_network: bool = False) -> None:
    if out.requires_grad:
        out.register_hook(lambda g: _add_backward(passes, len(g), through_network))  # type: ignore[no-untyped-call]


def _add_backward(passes: Passes, n: int, through_network: bool) -> None:
    passes.backwards += n
    passes.through += n * through_network
