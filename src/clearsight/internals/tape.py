"""The operations on tensors that a function runs, written down as it runs.

``torch.fx``'s own tracer at this level, ``make_fx``, imports torch's compiler: two seconds for a run of a tenth of one.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.overrides import TorchFunctionMode

from clearsight.internals.by_tensor import ByTensor
from clearsight.internals.pointwise import is_pointwise
from clearsight.internals.watch import Watch


class Kind(NamedTuple):
    """What is known of the value of a node without the value."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, eq=False)
class Taped:
    """Operations in their order, and the tensors that are their attributes, by name.

    It is no fx.GraphModule, which would write each graph as Python text: it is followed node by node.
    """

    graph: fx.Graph
    tensors: dict[str, Tensor]


class ValueNeededError(RuntimeError):
    """Raised where Python is to decide by a value that depends on the input."""


def kind_of(node: fx.Node) -> Kind | None:
    """The kind of the value that a node had as it was written down; None where it is no tensor."""
    kind: Kind | None = node.meta.get("kind")
    return kind


def tape_of(run: Callable[[Tensor], Tensor], x: Tensor) -> Taped:
    """The operations that run(x) runs, those in place and on views as such that are neither.

    What Python computes is a constant of them; tensors from elsewhere, as weights, are attributes.

    ValueNeededError: Python asks for a number that depends on x.
    """
    return taped_by(Tape(x), run, x)


def taped_by(tape: Tape, run: Callable[[Tensor], Tensor], x: Tensor) -> Taped:
    """The same, by a tape of its own kind."""
    with tape, _Calls():
        out = functionalize(run, remove="mutations_and_views")(x)
    tape.graph.output(tape.node_of(out))
    return Taped(tape.graph, tape.attributes)


class _Calls(TorchFunctionMode):
    """Runs what works in place, number by number, as x.copy_(f(x)).

    functionalize would ask Python for the shapes of each such operation, and import torch's compiler for that, and it
    refuses some of them (relu6_, selu_).
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        signature = _with_a_switch(func)
        if signature is not None:
            given = signature.bind(*args, **kwargs)
            into = next(iter(given.arguments.values()))
            if given.arguments.get("inplace"):
                given.arguments["inplace"] = False
                out = func(*given.args, **given.kwargs)
                return into if out is into else into.copy_(out)
        instead = _sibling(func)
        return func(*args, **kwargs) if instead is None or not args else args[0].copy_(instead(*args, **kwargs))


@cache
def _with_a_switch(func: Any) -> inspect.Signature | None:
    """The signature of a function with the option inplace, as F.relu."""
    signature = inspect.signature(func, follow_wrapped=False) if inspect.isfunction(func) else None
    return signature if signature is not None and "inplace" in signature.parameters else None


@cache
def _sibling(func: Any) -> Any:
    """torch.Tensor.add_ -> torch.Tensor.add, if it works number by number; else None."""
    name = getattr(func, "__name__", "")
    bare = name.removesuffix("_")
    if bare == name or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, bare, None)
    if packet is None or not any(is_pointwise(getattr(packet, o)) for o in packet.overloads()):
        return None
    return getattr(Tensor, bare, None) or getattr(torch._C._nn, bare, None)


class Tape(Watch):
    """Runs every operation as it is, and appends it to a graph."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.attributes: dict[str, Tensor] = {}
        self.nodes: ByTensor[fx.Node] = ByTensor()
        self.moving: set[fx.Node] = set()  # those that depend on x
        start = self.graph.placeholder("x")
        self.moving.add(start)
        self._keep(x, start)

    def node_of(self, tensor: Tensor) -> fx.Node:
        node = self.nodes.get(tensor)
        if node is None:
            name = f"_tensor_{len(self.attributes)}"
            self.attributes[name] = tensor
            node = self.graph.create_node("get_attr", name)
            self._keep(tensor, node)
        return node

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if types:
            return NotImplemented  # a subclass of Tensor: what it does of itself comes here again
        kwargs = kwargs or {}
        nodes = fx.node.map_aggregate((args, kwargs), lambda a: self.node_of(a) if isinstance(a, Tensor) else a)
        if torch.Tag.data_dependent_output in func.tags and self.any_moving(nodes):
            raise ValueNeededError(f"{func} gives Python a value that depends on the input")
        out = self.outcome(func, nodes, args, kwargs)
        self._write(func, nodes, out)
        return out

    def outcome(self, func: Any, nodes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operation gives; nodes: its arguments, as they are written down."""
        return func(*args, **kwargs)

    def any_moving(self, nodes: Any) -> bool:
        found: list[fx.Node] = []
        fx.node.map_arg(nodes, found.append)
        return not self.moving.isdisjoint(found)

    def _write(self, func: Any, nodes: Any, out: Any) -> fx.Node:
        node = self.graph.call_function(func, *nodes)
        if self.any_moving(nodes):
            self.moving.add(node)
        if isinstance(out, Tensor):
            self._keep(out, node)
        elif isinstance(out, list | tuple):
            node.meta["many"] = type(out)
            node.meta["parts"] = [
                self._write(operator.getitem, ((node, i), {}), part)
                for i, part in enumerate(out)
                if isinstance(part, Tensor | list | tuple)
            ]
        return node

    def _keep(self, value: Tensor, node: fx.Node) -> None:
        self.nodes.put(value, node)
        node.meta["kind"] = Kind(tuple(value.shape), value.dtype, value.device)
        node.meta["strides"] = value.stride()
