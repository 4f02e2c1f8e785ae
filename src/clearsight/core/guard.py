"""The guard around a network: eval mode and frozen parameters inside, and everything as it was afterwards."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, compress
from operator import and_, attrgetter, eq, is_, ne
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from clearsight.core import surroundings
from clearsight.core.contents import CONTENTS, JOINED_BUFFERS, Contents, contents
from clearsight.core.settled import tell
from clearsight.core.small_tensors import joined
from clearsight.core.undoing import Undo, undone
from clearsight.errors import Refused

ORIGINAL = "_orig_mod"  # what torch.compile calls the module that it wrapped

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locking = threading.Lock()


def _lock(net: nn.Module) -> threading.RLock:
    """The one lock of a network."""
    with _locking:
        return _locks.setdefault(net, threading.RLock())


@dataclass
class _LeftBehind:
    """What the work inside left behind: how many hooks, and which parameters (by id) whose .data it exchanged."""

    hooks: int = 0
    moved: set[int] = field(default_factory=set)


@contextmanager
def guarded(net: nn.Module) -> Iterator[None]:
    """Eval mode and frozen parameters inside; on leaving, also by an exception, everything as it was.

    Every step has its own step back, and each of those is taken whatever becomes of the others.  An exception from
    inside is what is reported; what could not be put back is a note on it.
    """
    with _lock(net):
        held = contents(net)
        params, buffers = held.parameters, held.buffers
        _able(net, held.types)
        _initialised(params, buffers)
        undo: Undo = []
        left_behind = _LeftBehind()
        try:
            _hold_contents(held, undo)
            _hold_hooks(held.hooks, undo, left_behind)
            joined_buffers = _hold_buffers(held, undo)
            versions = _hold_parameters(params, undo, left_behind)
            _hold_modes(held, undo)
            surroundings.enter(undo)
            if ORIGINAL not in held.names:  # no part was exchanged by the guard itself
                tell(net, CONTENTS, held)
                tell(net, JOINED_BUFFERS, joined_buffers)
            yield
        except BaseException as e:
            for failed in undone(undo):
                e.add_note(f"and the network could not be put back in full: {type(failed).__name__}: {failed}")
            raise
        for failed in undone(undo):
            raise failed
        if left_behind.hooks:
            raise RuntimeError(f"{left_behind.hooks} hook(s) were left on the network (and are now removed)")
        written = compress(params, map(ne, map(attrgetter("_version"), params), versions))
        changed = {*map(id, written)}
        changed |= left_behind.moved
        if changed:
            names = [name for name, p in net.named_parameters() if id(p) in changed]
            raise RuntimeError(f"parameters were changed: {', '.join(names[:3])}; work on a copy.deepcopy")


def able(net: nn.Module) -> None:
    """Refused: networks that torch.jit has frozen, or that were recorded in training mode and stay in it."""
    _able(net, contents(net).types)


def _able(net: nn.Module, types: Iterable[type]) -> None:
    if not any(issubclass(kind, torch.jit.ScriptModule | fx.GraphModule) for kind in types):
        return
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


def _initialised(params: Sequence[Tensor], buffers: Sequence[Tensor]) -> None:
    tensors = [*params, *buffers]
    one_of_each_type = dict(zip(map(type, tensors), tensors, strict=True)).values()
    if any(map(is_lazy, one_of_each_type)) or any(map(Tensor.is_inference, params)):
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


def _hold_contents(held: Contents, undo: Undo) -> None:
    """What the modules hold by name: looked at and compared as one list, for a network is held many times."""

    def put_back() -> None:
        if held.is_unchanged:
            return
        ends = [*accumulate(held.sizes)]
        parts = [slice(end - size, end) for end, size in zip(ends, held.sizes, strict=True)]
        before = [dict(zip(held.names[at], held.values[at], strict=True)) for at in parts]
        _take([partial(_put_back, mapping, those) for mapping, those in zip(held.mappings, before, strict=True)])

    undo.append(put_back)


def _hold_hooks(mappings: Sequence[Any], undo: Undo, left_behind: _LeftBehind) -> None:
    hooked = [(hooks, dict(hooks)) for hooks in filter(None, mappings)]

    def put_back() -> None:
        if not hooked and not any(mappings):
            return
        had = {id(hooks) for hooks, _ in hooked}
        new: list[tuple[Any, dict[int, Any]]] = [
            (hooks, {}) for hooks in filter(None, mappings) if id(hooks) not in had
        ]
        _take([partial(_remove_new_hooks, hooks, before, left_behind) for hooks, before in (*hooked, *new)])

    undo.append(put_back)


def _hold_buffers(held: Contents, undo: Undo) -> list[Tensor]:
    """Copies of the buffers; small ones of one type are copied and compared together, and these copies are given."""
    buffers, kinds = held.buffers, held.grouped_buffers
    for i in kinds.others:
        undo.append(partial(refill, buffers[i], buffers[i].detach().clone()))
    copies, (_, shapes, *_) = kinds.joined(buffers), kinds.lie
    for group, copy in zip(kinds.groups, copies, strict=True):
        those = [*map(buffers.__getitem__, group)]
        undo.append(partial(_refill_together, those, [*map(shapes.__getitem__, group)], copy))
    return copies


def _refill_together(buffers: Sequence[Tensor], shapes: Sequence[torch.Size], before: Tensor) -> None:
    """Fill each as it was, unless all still are; whatever becomes of comparing them."""
    same = False
    try:
        same = torch.equal(joined(buffers), before)
    finally:
        failed: list[BaseException] = []
        if not same:
            parts = torch.split(before, [shape.numel() for shape in shapes])
            rows = zip(buffers, parts, shapes, strict=True)
            failed = undone([partial(refill, b, values.view(shape)) for b, values, shape in rows])
    for e in failed:
        raise e


def _hold_parameters(params: Sequence[nn.Parameter], undo: Undo, left_behind: _LeftBehind) -> list[int]:
    """Freeze the parameters; how often each was written to so far."""
    flag_of, grad_of = attrgetter("requires_grad"), attrgetter("grad")
    data, flags, grads = [*map(attrgetter("data"), params)], [*map(flag_of, params)], [*map(grad_of, params)]
    places = [*map(Tensor.data_ptr, params)]

    def put_back() -> None:
        same_data = map(eq, map(Tensor.data_ptr, params), places)
        same = [*map(and_, same_data, map(is_, map(grad_of, params), grads))]
        if not all(same):
            rows = zip(params, data, grads, same, strict=True)
            _take([partial(_restore, p, was, grad, left_behind) for p, was, grad, kept in rows if not kept])

    undo.append(put_back)
    undo.append(lambda: _set_flags(params, flags))
    for p in compress(params, flags):
        p.requires_grad_(False)
    return [*map(attrgetter("_version"), params)]


def _set_flags(params: Sequence[nn.Parameter], flags: Sequence[bool]) -> None:
    """requires_grad as it was, of each whatever becomes of the others."""
    failed: list[BaseException] = []
    changed = compress(zip(params, flags, strict=True), map(ne, flags, map(attrgetter("requires_grad"), params)))
    while True:
        try:
            for p, flag in changed:  # which goes on behind one that failed
                p.requires_grad_(flag)
        except BaseException as error:
            failed.append(error)
        else:
            break
    for e in failed:
        raise e


def _hold_modes(held: Contents, undo: Undo) -> None:
    """Eval mode, and compiled parts as they were before."""
    modules, modes = held.modules, held.modes

    def put_back() -> None:
        if held.modes != modes:
            pairs = zip(modules, modes, strict=True)
            _take([partial(setattr, m, "training", mode) for m, mode in pairs if m.training != mode])

    undo.append(put_back)
    for m in compress(modules, modes):
        m.training = False
    _uncompile(held, undo)


def _uncompile(held: Contents, undo: Undo) -> None:
    """What torch.compile wrapped is run as it was before: compiled code ignores hooks, and cannot be recorded."""
    wrapped = ORIGINAL in held.names
    if wrapped or any(map(attrgetter("_compiled_call_impl"), held.modules)):
        for m in held.modules:
            _unwrap(m, undo)


def _unwrap(m: nn.Module, undo: Undo) -> None:
    if isinstance(m, torch.jit.ScriptModule):
        return
    for name, part in list(m._modules.items()) if m._modules else ():
        inside = getattr(part, "_modules", None)
        before = inside.get(ORIGINAL) if isinstance(inside, dict) else None  # not of TorchScript
        if before is not None and name != ORIGINAL:
            m._modules[name] = before
    if m.__dict__.get("_compiled_call_impl") is not None:
        undo.append(partial(setattr, m, "_compiled_call_impl", m._compiled_call_impl))
        m._compiled_call_impl = None


def _take(steps: Undo) -> None:
    """Take these steps, whatever becomes of the others, and raise what failed first."""
    for failed in undone(steps):
        raise failed


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


def _restore(p: nn.Parameter, data: Tensor, grad: Tensor | None, left_behind: _LeftBehind) -> None:
    """A parameter's values and .grad as they were, each whatever becomes of the other."""
    try:
        _restore_data(p, data, left_behind)
    finally:
        if p.grad is not grad:
            p.grad = grad


def _restore_data(p: nn.Parameter, before: Tensor, left_behind: _LeftBehind) -> None:
    if p.data_ptr() != before.data_ptr():
        left_behind.moved.add(id(p))
        p.data = before
