"""A run of a network as it was seen: its operations, on what, and how a gradient comes back through them.

Nothing of the run is changed for that, unlike in a recording (see recording.py), and nothing is kept of its values.
Two runs that are equal are the same program, whatever the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from clearsight.core.contents import settled_contents
from clearsight.core.likeness import told_tensor
from clearsight.core.way_back import is_of_others, is_ours, operations_behind
from clearsight.internals.by_tensor import ByTensor
from clearsight.internals.tape import Kind
from clearsight.internals.watch import Watch

T = TypeVar("T")

START = 0  # the number of what the run starts from

_TAKES_OUT = frozenset(
    {
        "_set_grad_enabled", "item", "tolist", "numpy", "data_ptr", "untyped_storage", "storage", "equal", "is_nonzero",
        "__array__", "__dlpack__", "__bool__", "__float__", "__int__", "__index__", "__complex__", "__format__",
        "__contains__", "__reduce_ex__", "__deepcopy__", "detach", "detach_", "requires_grad_",
    }
)  # fmt: skip
_DATA: Any = Tensor.data
_OTHER_WAYS = (_DATA.__get__, _DATA.__set__, Tensor.requires_grad.__set__)  # type: ignore[attr-defined]
_TELLS_VALUES = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


class Value(NamedTuple):
    """A tensor of a run, by its number; written: what was last written over its memory since, -1: nothing."""

    number: int
    written: int = -1


class Step(NamedTuple):
    """One operation.

    args, kwargs: what it was given, tensors as Values.  gives, kinds: the numbers of the tensors that it gives, and
    what they are.  over: the numbers of those that it writes over.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: tuple[Any, ...]
    gives: tuple[int, ...]
    kinds: tuple[Kind, ...]
    over: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return str(self.operation.overloadpacket.__name__)

    @property
    def reads(self) -> list[int]:
        """The numbers of all tensors that it depends on."""
        return [n for value in values_in((self.args, self.kwargs)) for n in value if n >= 0]


@dataclass(frozen=True)
class SeenRun:
    """What a network ran.

    given: tensors that no step gave: their numbers, kinds, and which weight or buffer each is, or what it holds.
    end: the number of the scores.  back: the operations of autograd behind them, and which reads which; None where not
    all are torch's.  asked: Python took a value out of a tensor, which may have decided what ran, or kept a gradient
    from coming back.  strides: how what it starts from lies in memory, and what each step gave; no part of what ran.
    """

    steps: tuple[Step, ...]
    given: tuple[tuple[int, Kind, Any], ...]
    end: int
    back: tuple[Any, ...] | None
    asked: bool
    strides: tuple[Any, ...] = field(default=(), compare=False)


def values_in(told: Any) -> Iterator[Value]:
    """All Values among arguments."""
    if type(told) is Value:
        yield told
    elif isinstance(told, tuple | list):
        for part in told:
            yield from values_in(part)


class Sight:
    """Sees a run of a network from a tensor z on."""

    def __init__(self, net: nn.Module, z: Tensor) -> None:
        self._steps = _Steps(net, z)
        self._calls = Calls()

    def look(self, run: Callable[[], T]) -> T:
        """Run something, and see it."""
        with self._steps, self._calls:
            return run()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, nothing is seen."""
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            yield

    def number_of(self, tensor: Tensor) -> int:
        """The number of what a tensor holds now."""
        number, written = self._steps.told(tensor)
        return int(max(number, written))

    def run(self, out: Tensor) -> SeenRun:
        """All that was seen, of a run that gave out."""
        steps, asked = self._steps, self._steps.asked or self._calls.asked
        strides = tuple(steps.strides)
        return SeenRun(tuple(steps.steps), tuple(steps.given), self.number_of(out), way_back(out), asked, strides)

    def is_kept(self, run: SeenRun) -> bool:
        """Whether anybody still holds what the run made of its start, as a network that keeps its features does."""
        moving = {START}
        for step in run.steps:
            if not moving.isdisjoint(step.reads):
                moving.update(step.gives)
                is_new = not step.over and not is_view(step.operation)
                if is_new and any(is_held(self._steps.memory[n]) for n in step.gives):
                    return True
        return False


class Calls(TorchFunctionMode):
    """Sees what takes a value out of a tensor, or keeps a gradient from coming back, which is no operation."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        asks, registers = told_of(func)
        self.asked |= asks or (registers and not is_ours(args[1]))
        return func(*args, **kwargs) if kwargs else func(*args)


@lru_cache(4096)
def told_of(func: Any) -> tuple[bool, bool]:
    """Whether a function takes a value out of a tensor, or keeps a gradient back, and whether it registers a hook."""
    name = getattr(func, "__name__", "")
    asks = name in _TAKES_OUT or (name in ("__get__", "__set__") and func in _OTHER_WAYS)
    return asks, name.startswith("register_")


class _Steps(Watch):
    def __init__(self, net: nn.Module, z: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        held = settled_contents(net)
        self.weights = {id(t): i for i, t in enumerate((*held.parameters, *held.buffers))}
        self.steps: list[Step] = []
        self.strides: list[Any] = [z.stride()]
        self.given: list[tuple[int, Kind, Any]] = []
        self.asked = False
        self.numbers: ByTensor[int] = ByTensor()
        self.memory: dict[int, StorageWeakRef] = {}  # by number, of what a step gave
        self.whose: list[int] = []  # of each number, the first one of the same memory
        self.last_over: dict[int, int] = {}  # of the first number of a memory, the last one that was written over it
        self.given.append((self._new(z), kind(z), "pictures"))

    def _new(self, tensor: Tensor | None, whose: int | None = None) -> int:
        number = len(self.whose)
        self.whose.append(number if whose is None else whose)
        if tensor is not None:
            self._keep_number(tensor, number)
        return number

    def _keep_number(self, tensor: Tensor, number: int) -> None:
        self.numbers.put(tensor, number)

    def _kept_number(self, tensor: Tensor) -> int | None:
        return self.numbers.get(tensor)

    def told(self, a: Any) -> Any:
        """An argument, with Values in the place of tensors."""
        if isinstance(a, Tensor):
            number = self._kept_number(a)
            if number is None:
                number = self._new(a)
                at = self.weights.get(id(a))
                what = told_tensor(a) if at is None else at
                self.asked |= what is None
                self.given.append((number, kind(a), what))
            last = self.last_over.get(self.whose[number], -1)
            return Value(number, last if last > number else -1)
        return type(a)(map(self.told, a)) if type(a) in (list, tuple) else a

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(kind not in (Tensor, nn.Parameter) for kind in types):
            self.asked = True
            return NotImplemented
        if func is torch.ops.aten.detach.default:  # by autograd; where a network does it, it is seen as a call
            out = func(*args, **kwargs)
            self._keep_number(out, self.told(args[0]).number)
            return out
        self.asked |= not _TELLS_VALUES.isdisjoint(func.tags) or torch.is_inference_mode_enabled()
        told = self.told(args), self.told(tuple(kwargs.items()))
        over = tuple(value.number for i in written(func) for value in values_in(told[0][i : i + 1]))
        if func._schema.is_mutable and not over:  # into something that is named, as out=
            over = tuple(value.number for value in values_in(told))
        out = func(*args, **kwargs)
        first = next(values_in(told), None)
        whose = self.whose[first.number] if first and (over or is_view(func)) else None
        parts = [p for p in (out if isinstance(out, list | tuple) else [out]) if isinstance(p, Tensor)]
        gives = tuple(self._new(part, whose) for part in parts)
        self.memory.update((n, memory_of(part)) for n, part in zip(gives, parts, strict=True))
        for number in over:
            self.last_over[self.whose[number]] = gives[0] if gives else self._new(None, whose)
        self.steps.append(Step(func, *told, gives, tuple(map(kind, parts)), over))
        self.strides.append([part.stride() for part in parts])
        return out


def memory_of(t: Tensor) -> StorageWeakRef:
    """Where a tensor lies, without keeping it alive."""
    return StorageWeakRef(t.untyped_storage())  # type: ignore[no-untyped-call]


def is_held(memory: StorageWeakRef) -> bool:
    """Whether any tensor or array still lies there."""
    return not memory.expired()  # type: ignore[no-untyped-call]


def kind(t: Tensor) -> Kind:
    return Kind(tuple(t.shape), t.dtype, t.device)


@cache
def written(operation: Any) -> tuple[int, ...]:
    """Which of its arguments an operation writes over."""
    arguments = enumerate(operation._schema.arguments)
    return tuple(i for i, a in arguments if a.alias_info is not None and a.alias_info.is_write and not a.kwarg_only)


@cache
def is_view(operation: Any) -> bool:
    return any(r.alias_info is not None for r in operation._schema.returns)


def way_back(out: Tensor) -> tuple[Any, ...] | None:
    """The operations of autograd behind a tensor, each with the numbers of those that it hands a gradient to."""
    operations = operations_behind(out)
    if not operations or any(map(is_of_others, operations)):
        return None
    numbers: dict[Any, int] = {operation: i for i, operation in enumerate(operations)}
    return tuple(
        (operation.name(), tuple((numbers.get(before, -1), output) for before, output in operation.next_functions))
        for operation in operations
    )
