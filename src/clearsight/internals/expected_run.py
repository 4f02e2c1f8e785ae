"""Whether a network runs as another one was seen to run (see seen_run.py).

Every operation is compared with the one that is expected at its place, so that nothing need be written down of it, and
what it gives need hold no values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from clearsight.core.contents import settled_contents
from clearsight.core.likeness import told_tensor
from clearsight.core.way_back import is_ours
from clearsight.internals.by_tensor import ByTensor
from clearsight.internals.seen_run import (
    START,
    Calls,
    SeenRun,
    Step,
    Value,
    is_held,
    is_view,
    kind,
    memory_of,
    told_of,
    values_in,
    way_back,
    written,
)
from clearsight.internals.tape import Kind
from clearsight.internals.watch import Watch

_DETACH = torch.ops.aten.detach.default
_PLAIN, _NESTED = -1, -2  # arguments without tensors, and those that hold some


class OtherStepError(Exception):
    """Raised where a run is not the one that is expected."""


class _Planned(NamedTuple):
    """A step, and how what it gives is had where it is not computed.

    args: its arguments, each with the number of the tensor that it is, or _PLAIN, or _NESTED.  empty: the new tensors
    that it gives, without values: sizes, strides, type and device; None: see is_over.  is_over: it gives what it wrote
    over, which is not written.  Else it is run: views, which cost nothing, and what does not depend on the start, which
    may be kept for ever.  is_one: it gives a tensor, not several.
    """

    step: Step
    args: tuple[tuple[int, Any], ...]
    empty: tuple[tuple[Any, ...], ...] | None
    is_over: bool
    is_one: bool


def plan_of(run: SeenRun) -> list[_Planned]:
    """How to go through a run without computing what depends on its start."""
    moving, found = {START}, []
    for step, strides in zip(run.steps, run.strides[1:], strict=True):
        way = "run"
        if not moving.isdisjoint(step.reads):
            moving.update(step.gives)
            way = _without_values(step)
        kinds = zip(step.kinds, strides, strict=True)
        empty = tuple((k.shape, lies, k.dtype, k.device) for k, lies in kinds) if way in ("one", "several") else None
        found.append(_Planned(step, tuple(map(_wanted, step.args)), empty, way == "over", way == "one"))
    return found


def _wanted(told: Any) -> tuple[int, Any]:
    if type(told) is Value:
        return told.number, None
    return (_PLAIN if next(values_in(told), None) is None else _NESTED), told


def _listed(out: Any) -> Sequence[Any]:
    return out if isinstance(out, list | tuple) else [out]


def _without_values(step: Step) -> str:
    """How what an operation gives is had without computing it: "one" or "several" new tensors, or what it wrote "over".

    "run": it is run all the same, as where it leaves one of its tensors out.
    """
    operation = step.operation
    returns, writes = operation._schema.returns, written(operation)
    if any(str(r.type) != "Tensor" for r in returns) or len(step.kinds) != len(returns):
        return "run"
    if torch.Tag.inplace_view in operation.tags:
        return "run"
    if operation._schema.is_mutable:
        return "over" if writes == (0,) and len(returns) == 1 else "run"
    if is_view(operation) or not returns:
        return "run"
    return "one" if len(returns) == 1 else "several"


class Expected:
    """A run that others may equal, and how to find that out."""

    def __init__(self, run: SeenRun) -> None:
        self.run = run

    @cached_property
    def plan(self) -> list[_Planned]:
        return plan_of(self.run)

    @cached_property
    def ends(self) -> dict[int, int]:
        """Of each tensor that was written over in the end, by number, the number of what it holds then."""
        whose, last = {number: number for number, _, _ in self.run.given}, dict[int, int]()
        for step in self.run.steps:
            first = next(values_in((step.args, step.kwargs)), None)
            memory = whose[first.number] if first and (step.over or is_view(step.operation)) else None
            whose.update((n, n if memory is None else memory) for n in step.gives)
            last.update((whose[n], step.gives[0]) for n in step.over if step.gives)
        return {number: last[memory] for number, memory in whose.items() if last.get(memory, -1) > number}

    @cached_property
    def given(self) -> dict[int, tuple[Kind, Any]]:
        """What each of the tensors is that no step gives, by number."""
        return {number: (kind, what) for number, kind, what in self.run.given}

    def seen_in(
        self, net: nn.Module, z: Tensor, run: Callable[[], Tensor], *, computed: bool = False
    ) -> tuple[Tensor, SeenRun]:
        """What a network gives from z on, and what it runs, as this run as far as that goes.

        computed: all is, so that what it gives holds values.  OtherStepError: at the first step that is another one.
        """
        steps, calls = Comparing(net, z, self, computed=computed), Calls() if computed else Unanswered()
        with steps, calls:
            out = run()
        return out, steps.seen(out, calls.asked)


class Unanswered(Calls):
    """Sees the same in a run without values, and gives none."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        asks, registers = told_of(func)
        if asks:
            self.asked = True  # a network may catch the error, and go on
            raise OtherStepError
        self.asked |= registers and not is_ours(args[1])
        return func(*args, **kwargs) if kwargs else func(*args)


class Comparing(Watch):
    """Compares each operation with that which is expected."""

    def __init__(self, net: nn.Module, z: Tensor, expected: Expected, *, computed: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        held = settled_contents(net)
        self.expected, self.plan, self.at, self.computed = expected, expected.plan, 0, computed
        self.weights = {id(t): i for i, t in enumerate((*held.parameters, *held.buffers))}
        self.numbers: ByTensor[int] = ByTensor()
        self.numbers.put(z, START)
        if expected.given[START] != (kind(z), "pictures"):
            raise OtherStepError
        self.numbered = START + 1  # how many tensors have numbers
        self.asked = False
        self.memory: list[StorageWeakRef] = []  # without values

    @property
    def is_kept(self) -> bool:
        """Whether anybody still holds what was given without values."""
        return any(map(is_held, self.memory))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(t not in (Tensor, nn.Parameter) for t in types):
            self.asked = True
            return NotImplemented
        if func is _DETACH:  # by autograd; where a network does it, it is seen as a call
            out = func(*args, **kwargs)
            self.numbers.put(out, self._number(args[0]))
            return out
        self.asked |= torch.is_inference_mode_enabled()
        try:
            return self.compare(func, args, kwargs)
        except OtherStepError:
            self.asked = True  # a network may catch the error, and go on
            raise

    def compare(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the next step gives, if it is the one that is expected."""
        planned = self.plan[self.at] if self.at < len(self.plan) else None
        if planned is None or planned.step.operation is not func:
            raise OtherStepError
        step = planned.step
        if not self._takes(args, planned.args) or (
            (kwargs or step.kwargs) and not self._alike(tuple(kwargs.items()), step.kwargs)
        ):
            raise OtherStepError
        out = self._outcome(planned, args, kwargs)
        parts = [out] if type(out) is Tensor else [p for p in _listed(out) if isinstance(p, Tensor)]
        if (self.computed or not planned.empty) and tuple(map(kind, parts)) != step.kinds:
            raise OtherStepError
        for number, part in zip(step.gives, parts, strict=True):
            self.numbers.put(part, number)
        self.numbered += len(parts) or len(step.over)
        self.at += 1
        return out

    def _takes(self, given: Sequence[Any], wanted: Sequence[tuple[int, Any]]) -> bool:
        """Whether the arguments of an operation are those that are expected, which most are: it is asked often."""
        if len(given) != len(wanted):
            return False
        for a, (number, w) in zip(given, wanted, strict=True):
            if number >= 0:
                if not isinstance(a, Tensor) or self._number(a) != number:
                    return False
            elif number == _PLAIN and type(a) is type(w):
                if a is not w and a != w:
                    return False
            elif not self._alike((a,), (w,)):
                return False
        return True

    def _outcome(self, planned: _Planned, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if planned.is_over and not self.computed:
            return args[0]
        if planned.empty is None or self.computed:
            return planned.step.operation(*args, **kwargs)
        empty = [torch.empty_strided(size, lies, dtype=t, device=d) for size, lies, t, d in planned.empty]
        self.memory += map(memory_of, empty)
        return empty[0] if planned.is_one else tuple(empty)

    def _alike(self, given: Sequence[Any], wanted: Sequence[Any]) -> bool:
        """Whether arguments are those that are expected: the same tensors of the run, and equal values of others."""
        if len(given) != len(wanted):
            return False
        for a, w in zip(given, wanted, strict=True):
            if type(w) is Value:
                if not isinstance(a, Tensor) or self._number(a) != w.number:
                    return False
            elif type(w) in (list, tuple):
                if type(a) is not type(w) or not self._alike(a, w):
                    return False
            elif a is not w and (isinstance(a, Tensor) or a != w):
                return False
        return True

    def _number(self, tensor: Tensor) -> int:
        """That of a tensor of the run; one that no step gave gets the next, if it is what is expected there."""
        known = self.numbers.get(tensor)
        if known is not None:
            return known
        number, at = self.numbered, self.weights.get(id(tensor))
        if self.expected.given.get(number) != (kind(tensor), told_tensor(tensor) if at is None else at):
            raise OtherStepError
        self.numbers.put(tensor, number)
        self.numbered += 1
        return number

    def seen(self, out: Tensor, asked: bool) -> SeenRun:
        """All that was seen, of a run that gave out: as much of what is expected as it ran."""
        run, number = self.expected.run, self._number(out)
        end = self.expected.ends.get(number, number)
        return SeenRun(run.steps[: self.at], run.given, end, way_back(out), self.asked or asked)
