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
class _LeftBehind:
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
        left_behind = _LeftBehind()
        try:
            params = _hold(net, undo, left_behind)
            surroundings.enter(undo)
            yield
        except BaseException as e:
            for failed in undone(undo):
                e.add_note(f"and the network could not be put back in full: {type(failed).__name__}: {failed}")
            raise
        for failed in undone(undo):
            raise failed
        if left_behind.hooks:
            raise RuntimeError(f"{left_behind.hooks} hook(s) were left on the network (and are now removed)")
        changed = [name for name, p, version in params if p._version != version or name in left_behind.moved]
        if changed:
            raise RuntimeError(f"parameters were changed: {', '.join(changed[:3])}; work on a copy.deepcopy")


def able(net: nn.Module) -> None:
    """Refused: networks that torch.jit has frozen, or that were recorded in training mode and stay in it."""
    for name, m in net.named_modules():
        if isinstance(m, torch.jit.ScriptModule) and not hasattr(m, "training"):
            raise Refused(
                f"{_part_name(name)} was frozen by torch.jit.freeze (or optimize_for_inference), which hides its "
                "weights: wrap the network that was frozen, or the nn.Module that it was made from"
            )
        if _stays_in_training(m):
            raise Refused(
                f"{_part_name(name)} was recorded by torch.jit or torch.export in training mode, and stays in it: "
                "call net.eval() and record it again"
            )


def _named(modules: Sequence[tuple[str, nn.Module]], kind: str) -> list[tuple[str, Any]]:
    """Each parameter, or buffer, of these modules once, as `named_parameters` gives them."""
    found: dict[int, tuple[str, Any]] = {}
    for prefix, m in modules:
        for name, tensor in getattr(m, kind).items():
            if tensor is not None:
                found.setdefault(id(tensor), (f"{prefix}.{name}" if prefix else name, tensor))
    return list(found.values())


def _initialised(net: nn.Module) -> None:
    modules = list(net.named_modules())
    params, buffers = (_named(modules, kind) for kind in ("_parameters", "_buffers"))
    if any(is_lazy(t) for _, t in (*params, *buffers)) or any(p.is_inference() for _, p in params):
        raise Refused(
            "the network has parameters made in inference mode, or not initialised yet: build it outside "
            "torch.inference_mode() and run it once"
        )


def _part_name(name: str) -> str:
    return f"the network's part {name}" if name else "the network"


def _stays_in_training(m: nn.Module) -> bool:
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


def _hold(net: nn.Module, undo: Undo, left_behind: _LeftBehind) -> list[tuple[str, nn.Parameter, int]]:
    """Put the network into eval mode and freeze it, a step back for each step; its parameters as they are now."""
    named = list(net.named_modules())
    modules = [m for _, m in named]
    empty: list[Any] = []  # what holds nothing, most of it: no step of its own, for a network is held many times
    for m in modules:
        for kind in ("_parameters", "_buffers", "_modules"):
            mapping = getattr(m, kind)
            if len(mapping):
                undo.append(partial(_put_back, mapping, dict(mapping.items())))
            else:
                empty.append(mapping)
    undo.append(partial(_undo_new, empty, lambda mapping: _put_back(mapping, {})))
    unhooked: list[Any] = []
    for m in modules:
        for kind in _HOOKS:
            hooks = getattr(m, kind, None)
            if isinstance(hooks, dict) and hooks:
                undo.append(partial(_remove_new_hooks, hooks, dict(hooks), left_behind))
            elif isinstance(hooks, dict):
                unhooked.append(hooks)
    undo.append(partial(_undo_new, unhooked, lambda hooks: _remove_new_hooks(hooks, {}, left_behind)))
    for _, b in _named(named, "_buffers"):
        undo.append(partial(refill, b, b.detach().clone()))
    params = []
    for name, p in _named(named, "_parameters"):
        params.append((name, p, p._version))
        undo.append(partial(setattr, p, "grad", p.grad))
        undo.append(partial(p.requires_grad_, p.requires_grad))
        undo.append(partial(_restore_data, name, p, p.data, left_behind))
        p.requires_grad_(False)
    undo.append(partial(_undo_new, [(m, m.training) for m in modules], _put_mode_back))
    for m in modules:
        if m.training:
            m.training = False
        _uncompile(m, undo)
    return params


def _uncompile(m: nn.Module, undo: Undo) -> None:
    """What torch.compile wrapped is run as it was before: compiled code ignores hooks, and cannot be recorded."""
    if isinstance(m, torch.jit.ScriptModule):
        return
    for name, part in list(m._modules.items()):
        inside = getattr(part, "_modules", None)
        before = inside.get("_orig_mod") if isinstance(inside, dict) else None  # not of TorchScript
        if before is not None and name != "_orig_mod":
            m._modules[name] = before
    if m.__dict__.get("_compiled_call_impl") is not None:
        undo.append(partial(setattr, m, "_compiled_call_impl", m._compiled_call_impl))
        m._compiled_call_impl = None


def _undo_new(mappings: Sequence[Any], step: Callable[[Any], None]) -> None:
    """Take the step for each that holds something now, whatever becomes of the others."""
    for failed in undone([partial(step, mapping) for mapping in mappings if len(mapping)]):
        raise failed


def _put_mode_back(module_and_mode: tuple[nn.Module, bool]) -> None:
    module, mode = module_and_mode
    if module.training != mode:
        module.training = mode


def _put_back(mapping: Any, before: dict[str, Any]) -> None:
    """A module's own dictionary as it was; TorchScript's take no new names, and give none up."""
    if [(k, id(v)) for k, v in mapping.items()] == [(k, id(v)) for k, v in before.items()]:
        return
    if isinstance(mapping, dict):
        mapping.clear()
        mapping.update(before)
        return
    for name, value in before.items():
        if mapping[name] is not value:
            mapping[name] = value


def _remove_new_hooks(hooks: dict[int, Any], before: dict[int, Any], left_behind: _LeftBehind) -> None:
    if dict(hooks) != before:
        left_behind.hooks += len(hooks.keys() - before.keys())
        hooks.clear()
        hooks.update(before)


def refill(buffer: Tensor, before: Tensor) -> None:
    if not torch.equal(buffer, before):
        with torch.no_grad():
            buffer.copy_(before)


def _restore_data(name: str, p: nn.Parameter, before: Tensor, left_behind: _LeftBehind) -> None:
    if p.data_ptr() != before.data_ptr():
        left_behind.moved.append(name)
        p.data = before
