"""What two networks have in common that differ in the values of their weights alone.

Compared are the classes of their modules with all that these hold, the names, shapes and types of their tensors, and
whatever Python attributes their modules have: numbers, words, functions, tensors that are no weights; and their hooks.
"""

from __future__ import annotations

import functools
import types
import weakref
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from xxhash import xxh3_128

from clearsight.core.contents import settled_contents
from clearsight.core.passes import counts
from clearsight.core.settled import while_settled

_BY_TORCH = frozenset(vars(nn.Module()))  # attributes that every module has: its tensors, modules, hooks and mode
_HOOKS = tuple(sorted(name for name in _BY_TORCH if name.endswith("hooks") and "state_dict" not in name))
_ABOUT_HOOKS = tuple(sorted(name for name in _BY_TORCH if "hooks_" in name and "state_dict" not in name))
_NO_DIFFERENCE = frozenset({"__doc__", "__module__", "__annotations__", "__dict__", "__weakref__", "__firstlineno__"})
_VALUES = (int, bool, str, bytes, complex, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
_IN_PYTHON = 1 << 9  # a flag of a class that was made at run time
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")


@dataclass(frozen=True)
class Likeness:
    """Equal keys: two networks are alike, but for what modules keep to themselves, in attributes that begin with "_".

    hidden: these.  certain: nothing of all that had to be left out because it cannot be compared by value.
    """

    key: tuple[Any, ...]
    hidden: tuple[Any, ...]
    certain: bool


class _Itself:
    """Stands for an object that is like itself alone, without keeping it alive."""

    def __init__(self, value: Any) -> None:
        self.number = id(value)
        try:
            self.alive: Any = weakref.ref(value)
        except TypeError:
            self.alive = lambda: value

    def __eq__(self, other: object) -> bool:
        mine = self.alive()
        return isinstance(other, _Itself) and mine is not None and mine is other.alive()

    def __hash__(self) -> int:
        return self.number


def likeness(net: nn.Module) -> Likeness:
    """What a network has in common with others that differ in the values of their weights alone."""
    return while_settled(net, "likeness", lambda: _likeness(net))


def _likeness(net: nn.Module) -> Likeness:
    held = settled_contents(net)
    told = _Told(held.modules)
    attributes = [
        (i, name, told.of(value))
        for i, m in enumerate(held.modules)
        if not isinstance(m, torch.jit.ScriptModule)
        for name, value in vars(m).items()
        if name not in _BY_TORCH
    ]
    hidden = tuple(a for a in attributes if a[1].startswith("_"))
    shown = tuple(a for a in attributes if not a[1].startswith("_"))
    kinds = [*map(type, held.modules)]
    weights = [(t.shape, t.stride(), t.dtype, t.device) for t in (*held.parameters, *held.buffers)]
    classes = [*map(_class_told, dict.fromkeys(kinds))]
    key = (held.structure.key, tuple(kinds), shown, tuple(weights), tuple(classes), _hooks_told(held.modules, told))
    return Likeness(key, hidden, told.certain and not _is_hooked_elsewhere(kinds))


def _is_hooked_elsewhere(kinds: list[type]) -> bool:
    """Whether something runs before or after every module there is, or torch.jit made one."""
    if any(getattr(torch_module, name) for name in _GLOBAL_HOOKS):
        return True
    return any(issubclass(kind, torch.jit.ScriptModule) for kind in {*kinds})


def _hooks_told(modules: list[nn.Module], told: _Told) -> tuple[Any, ...]:
    """What runs before and after each module, but for what counts."""
    each = itemgetter(*_HOOKS)
    return tuple(
        (i, name, told.of(hook), *(key in getattr(m, about) for about in _ABOUT_HOOKS))
        for i, m in enumerate(modules)
        if not isinstance(m, torch.jit.ScriptModule) and any(each(vars(m)))
        for name in _HOOKS
        for key, hook in getattr(m, name).items()
        if not counts(hook)
    )


def _value_told(value: Any) -> Any:
    """What tells a value of a class from others: its own of simple types, of all others that it is the very same."""
    if type(value) is float:
        return value.hex()
    return value if type(value) in _VALUES else _Itself(value)


def _class_told(kind: type) -> tuple[Any, ...]:
    """What a class of modules holds, and those it is derived from: a function that is exchanged there is another."""
    held = [
        (name, _value_told(value))
        for c in kind.__mro__[: kind.__mro__.index(nn.Module)]
        for name, value in vars(c).items()
        if name not in _NO_DIFFERENCE
    ]
    return kind, tuple(held)


def _inside(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty by now
        return cell


class _Function(_Itself):
    """Stands for a function, which is like itself and like those that the same lines made around equal constants."""

    def __init__(self, value: types.FunctionType) -> None:
        super().__init__(value)
        self.code, self.number = value.__code__, id(value.__code__)
        around = [*map(_inside, value.__closure__ or ())]
        given = (*around, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        is_plain = not vars(value) and all(type(v) in (*_VALUES, float) for v in given)
        self.constants = (id(value.__globals__), *map(repr, given)) if is_plain else None

    def __eq__(self, other: object) -> bool:
        if super().__eq__(other):
            return True
        alike = isinstance(other, _Function) and self.code is other.code
        return alike and self.constants is not None and self.constants == getattr(other, "constants", None)

    def __hash__(self) -> int:
        return self.number


class _Told:
    """Values as something that is compared by equality; certain: all of them could be."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.places = {id(m): i for i, m in enumerate(modules)}
        self.certain = True

    def of(self, value: Any) -> Any:
        kind = type(value)
        if kind in _VALUES:
            return value if kind is str else (kind, value)
        if kind is float:
            return value.hex()
        if kind in (tuple, list, torch.Size):
            return kind, tuple(map(self.of, value))
        if isinstance(value, dict) and kind.__module__ in ("builtins", "collections"):
            return kind, tuple((self.of(k), self.of(v)) for k, v in value.items())
        if kind in (set, frozenset):
            return kind, frozenset(map(self.of, value))
        if isinstance(value, nn.Module) and id(value) in self.places:
            return "module", self.places[id(value)]
        return self._rarer(value)

    def _rarer(self, value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return _Function(value)
        if isinstance(value, Enum | type | types.BuiltinFunctionType | types.ModuleType):
            return _Itself(value)
        if isinstance(value, types.MethodType):
            return _Itself(value.__func__), self.of(value.__self__)
        if type(value) is functools.partial:
            return self.of(value.func), self.of(value.args), self.of(value.keywords)
        if isinstance(value, Tensor):
            told = told_tensor(value)
            self.certain &= told is not None
            return told
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            return "array", value.shape, value.dtype, xxh3_128(value.tobytes()).digest()
        if _is_its_attributes(value) and all(type(v) in (*_VALUES, float) for v in vars(value).values()):
            return type(value), tuple((name, self.of(v)) for name, v in vars(value).items())
        self.certain = False
        return _repr(value)


def _is_its_attributes(value: Any) -> bool:
    """Whether an object holds nothing but attributes, as one of a class that is written in Python."""
    classes = type(value).__mro__[:-1] if hasattr(value, "__dict__") else ()
    return bool(classes) and all(c.__flags__ & _IN_PYTHON and "__slots__" not in vars(c) for c in classes)


def told_tensor(value: Tensor) -> tuple[Any, ...] | None:
    """A tensor as what it holds; None for those of a rarer kind."""
    if value.layout != torch.strided or value.is_quantized or type(value) not in (Tensor, nn.Parameter):
        return None
    about = "tensor", tuple(value.shape), value.stride(), value.dtype, value.device
    plain = value.detach().cpu().contiguous().reshape(-1)
    return *about, xxh3_128(plain.view(torch.uint8).numpy().data).digest() if plain.numel() else b""


def _repr(value: Any) -> str:
    """An object as text, which for most has its address."""
    try:
        return f"{type(value)} {value!r}"
    except Exception:  # what cannot be told apart is different
        return f"at {id(value)}"
