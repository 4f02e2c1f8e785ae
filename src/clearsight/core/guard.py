"""The guard around a network: eval mode and frozen parameters inside, and everything as it was afterwards."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from clearsight.core import surroundings
from clearsight.core.undoing import Undo, undone
from clearsight.errors import Refused

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locking = threading.Lock()


def _lock(net: nn.Module) -> threading.RLock:
    """The one lock of a network."""
    with _locking:
        return _locks.setdefault(net, threading.RLock())


@dataclass
class _Left:
    """What the work inside left behind: how many hooks, and which parameters whose .data it exchanged."""

    hooks: int = 0
    moved: list[str] = field(default_factory=list)


@contextmanager
def guarded(net: nn.Module) -> Iterator[None]:
    """Eval mode and frozen parameters inside; on leaving, also by an exception, everything as it was.

    Every step has its own step back, and each of those is taken whatever becomes of the others.  An exception from
    inside is what is reported; what could not be put back is a note on it.
    """
    able(net)
    _initialised(net)
    with _lock(net):
        undo: Undo = []
        left = _Left()
        try:
            params = _held(net, undo, left)
            surroundings.enter(undo)
            yield
        except BaseException as e:
            for failed in undone(undo):
                e.add_note(f"and the network could not be put back in full: {type(failed).__name__}: {failed}")
            raise
        for failed in undone(undo):
            raise failed
        if left.hooks:
            raise RuntimeError(f"{left.hooks} hook(s) were left on the network (and are now removed)")
        changed = [name for name, p, version in params if p._version != version or name in left.moved]
        if changed:
            raise RuntimeError(f"parameters were changed: {', '.join(changed[:3])}; work on a copy.deepcopy")


def able(net: nn.Module) -> None:
    """Refused: networks that torch.jit has frozen, or that were recorded in training mode and stay in it."""
    for name, m in net.named_modules():
        if isinstance(m, torch.jit.ScriptModule) and not hasattr(m, "training"):
            raise Refused(
                f"{_called(name)} was frozen by torch.jit.freeze (or optimize_for_inference), and its weights "
                "are no longer to be seen: wrap what was frozen, or the nn.Module that it was made from"
            )
        if _trains_for_good(m):
            raise Refused(
                f"{_called(name)} was recorded by torch.jit or torch.export in training mode, and stays in it: "
                "call net.eval() first, and record it then"
            )


def _initialised(net: nn.Module) -> None:
    held = (*net.parameters(), *net.buffers())
    if any(is_lazy(t) for t in held) or any(p.is_inference() for p in net.parameters()):
        raise Refused(
            "the network has parameters that were made in inference mode, or are not initialised: build it outside "
            "torch.inference_mode() and run it once"
        )


def _called(name: str) -> str:
    return f"the network's part {name}" if name else "the network"


def _trains_for_good(m: nn.Module) -> bool:
    """Whether batch norm or dropout in training mode is written into what torch.jit or torch.export recorded."""
    if isinstance(m, torch.jit.ScriptModule):
        try:
            graph: Any = m.inlined_graph  # whose nodes live as long as it does
        except RuntimeError:  # a part without a forward of its own
            return False
        where = {"aten::batch_norm": 5, "aten::dropout": 2}
        nodes = [(n, i) for kind, i in where.items() for n in graph.findAllNodes(kind)]
        return any(list(n.inputs())[i].toIValue() is True for n, i in nodes)
    if not isinstance(m, fx.GraphModule):
        return False
    at: dict[Any, int] = {torch.ops.aten.batch_norm.default: 5, torch.ops.aten.dropout.default: 2}
    return any(n.args[at[n.target]] is True for n in m.graph.nodes if n.target in at and len(n.args) > at[n.target])


def _held(net: nn.Module, undo: Undo, left: _Left) -> list[tuple[str, nn.Parameter, int]]:
    """Put the network into eval mode and freeze it, a step back for each step; its parameters as they are now."""
    modules = list(net.modules())
    nothing: list[Any] = []  # what holds nothing, most of it: no step of its own, for a network is held many times
    for m in modules:
        for kind in ("_parameters", "_buffers", "_modules"):
            held = getattr(m, kind)
            if len(held):
                undo.append(partial(_put_back, held, dict(held.items())))
            else:
                nothing.append(held)
    undo.append(partial(_emptied, nothing, lambda held: _put_back(held, {})))
    unhooked: list[Any] = []
    for m in modules:
        for kind in _HOOKS:
            hooks = getattr(m, kind, None)
            if isinstance(hooks, dict) and hooks:
                undo.append(partial(_without_new, hooks, dict(hooks), left))
            elif isinstance(hooks, dict):
                unhooked.append(hooks)
    undo.append(partial(_emptied, unhooked, lambda hooks: _without_new(hooks, {}, left)))
    for b in net.buffers():
        undo.append(partial(refill, b, b.detach().clone()))
    params = []
    for name, p in net.named_parameters():
        params.append((name, p, p._version))
        undo.append(partial(setattr, p, "grad", p.grad))
        undo.append(partial(p.requires_grad_, p.requires_grad))
        undo.append(partial(_pointed_back, name, p, p.data, left))
        p.requires_grad_(False)
    for m in modules:
        undo.append(partial(setattr, m, "training", m.training))
        m.training = False
        _as_written(m, undo)
    return params


def _as_written(m: nn.Module, undo: Undo) -> None:
    """What torch.compile wrapped is run as it was before: compiled code ignores hooks, and cannot be recorded."""
    if isinstance(m, torch.jit.ScriptModule):
        return
    for name, part in list(m._modules.items()):
        before = getattr(part, "_orig_mod", None)
        if isinstance(before, nn.Module) and name != "_orig_mod":
            m._modules[name] = before
    if m.__dict__.get("_compiled_call_impl") is not None:
        undo.append(partial(setattr, m, "_compiled_call_impl", m._compiled_call_impl))
        m._compiled_call_impl = None


def _emptied(every: Sequence[Any], step: Callable[[Any], None]) -> None:
    """Take the step for each that holds something now, whatever becomes of the others."""
    for failed in undone([partial(step, held) for held in every if len(held)]):
        raise failed


def _put_back(held: Any, was: dict[str, Any]) -> None:
    """A module's own dictionary as it was; TorchScript's take no new names, and give none up."""
    if [(k, id(v)) for k, v in held.items()] == [(k, id(v)) for k, v in was.items()]:
        return
    if isinstance(held, dict):
        held.clear()
        held.update(was)
        return
    for name, value in was.items():
        if held[name] is not value:
            held[name] = value


def _without_new(hooks: dict[int, Any], was: dict[int, Any], left: _Left) -> None:
    if dict(hooks) != was:
        left.hooks += len(hooks.keys() - was.keys())
        hooks.clear()
        hooks.update(was)


def refill(buffer: Tensor, was: Tensor) -> None:
    """Put a buffer's values back, where they changed."""
    if not torch.equal(buffer, was):
        with torch.no_grad():
            buffer.copy_(was)


def _pointed_back(name: str, p: nn.Parameter, was: Tensor, left: _Left) -> None:
    if p.data_ptr() != was.data_ptr():
        left.moved.append(name)
        p.data = was
