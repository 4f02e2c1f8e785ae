"""The network as the plain operations that it runs, for methods that must go through it one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx

from clearsight.core import passes
from clearsight.core.pixel_convolution import with_gap
from clearsight.errors import Refused
from clearsight.internals.kept_graph import held

Values = dict[fx.Node, Any]
Rule = Callable[["Graph", fx.Node, tuple[Any, ...], dict[str, Any]], Any]  # another way to run a node on its arguments
aten = torch.ops.aten

BYTES = 300 * 2**20  # of values that are kept together; the recording and folded weights come on top, below 1 GB


class Unrecordable(Refused):
    """Raised for a network that runs, but that cannot be taken apart into its operations."""


# torch.library.custom_op would import the compiler as it is called
_library = torch.library.Library("clearsight", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("mark(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
_library.impl("mark", Tensor.clone, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_autograd("clearsight::mark", lambda _context, g: g, lib=_library)


def mark(x: Tensor) -> Tensor:
    """Marks a layer's output in a recorded run; returns the same values."""
    marked: Tensor = torch.ops.clearsight.mark(x)
    return marked


@dataclass(frozen=True)
class Sized:
    """A size in a recorded operation that grows with the number of pictures: fixed + each * pictures."""

    fixed: int
    each: int

    def of(self, pictures: int) -> int:
        return self.fixed + self.each * pictures


@dataclass(eq=False)
class Run:
    """What is known of a run, whatever the weights, where networks that are alike run in just the same way.

    sizes: bytes that each node adds, for one picture.  found: what methods have found of its nodes.
    """

    sizes: list[int] = field(default_factory=list)
    found: dict[Any, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Graph:
    """One run of a network, from the normalised picture to the logits, as fx nodes in the order of their run.

    moving: the nodes whose value depends on the picture; settled: those whose value does not, which are the same for
    each run.  Networks that differ in their weights alone have graphs of the same nodes.
    """

    nodes: list[fx.Node]
    settled: list[fx.Node]
    moving: set[fx.Node]
    start: fx.Node
    end: fx.Node
    marked: fx.Node | None
    owner: fx.Graph = field(repr=False)  # nodes live as long as their graph does
    tensors: Mapping[str, Tensor] = field(
        repr=False
    )  # weights, and other tensors, by the names that nodes have for them
    run_of: Run = field(default_factory=Run, repr=False)
    kept: dict[Any, Tensor] = field(default_factory=dict, repr=False)  # what methods have made of its constants

    @cached_property
    def constants(self) -> Values:
        """The values of the settled nodes, worked out when they are first asked for."""
        found: Values = {}
        for node in self.settled:
            if node.op == "get_attr":
                found[node] = held(self.tensors[str(node.target)])
            else:
                found[node] = self.run(node, found, 0)
        return found

    def of_weights(self, tensors: Mapping[str, Tensor]) -> Graph:
        """The same run, with other weights."""
        return replace(self, tensors=tensors, kept={})

    def __call__(self, z: Tensor, rules: Mapping[str, Rule] | None = None) -> Tensor:
        """Logits of normalised pictures z (B, C, *S); differentiable.

        rules: operations to run in another way, by name.
        """
        passes.note(len(z))
        out = self.follow(self.nodes, {self.start: z}, len(z), rules=rules, wanted={self.end})[self.end]
        assert isinstance(out, Tensor)
        passes.await_back(out)
        return out

    def values(self, z: Tensor) -> Values:
        """The value of every moving node, for normalised pictures z (B, C, *S)."""
        passes.note(len(z))
        return self.follow(self.nodes, {self.start: z}, len(z))

    def at_once(
        self,
        z: Tensor | Callable[[], Tensor],
        work: int,
        copies: int = 1,
        more: int = 0,
        unkept: frozenset[str] = frozenset(),
    ) -> int:
        """How many pictures may be run with all their values kept: as BYTES hold.

        z: one of them (1, C, *S), normalised, or what gives it; it is run where this was not done before.  work: what a
        node needs while it is worked on, in tensors of its size.  copies: how often each value is kept.  more: pictures
        whose values are kept as well.  unkept: operations whose values are not, so that what any node needs may be
        there at every other.
        """
        sizes = self.run_of.sizes
        if not sizes:
            with torch.no_grad(), passes.uncounted():
                values = self.values(z if isinstance(z, Tensor) else z())
            counted: set[int] = set()
            for node in self.nodes:
                parts = values[node] if isinstance(values[node], list | tuple) else [values[node]]
                storages = {t.untyped_storage().data_ptr(): t for t in parts if isinstance(t, Tensor)}
                sizes.append(sum(t.untyped_storage().nbytes() for at, t in storages.items() if at not in counted))
                counted |= storages.keys()
        if unkept:
            kept = sum(size for node, size in zip(self.nodes, sizes, strict=True) if word(node) not in unkept)
            most = copies * kept + work * max(sizes)
        else:
            most = max(copies * total + work * new for total, new in zip(accumulate(sizes), sizes, strict=True))
        return max(1, (BYTES - more * sum(sizes)) // max(most, 1))

    def follow(
        self,
        order: list[fx.Node],
        values: Values,
        pictures: int,
        *,
        rules: Mapping[str, Rule] | None = None,
        wanted: set[fx.Node] | None = None,
    ) -> Values:
        """Run some nodes in their order, each on what was found before, and add their values to it.

        wanted: the values to keep to the end; others are let go after their last use.  By default all are kept.
        """
        last = {} if wanted is None else {used: node for node in order for used in node.all_input_nodes}
        for node in order:
            values[node] = self.run(node, values, pictures, rules)
            for used in node.all_input_nodes if wanted is not None else ():
                if last[used] is node and used not in (wanted or ()):
                    values.pop(used, None)
        return values

    def arguments(self, node: fx.Node, values: Values, pictures: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a node's operation."""

        def look(a: Any) -> Any:
            if isinstance(a, fx.Node):
                return values[a] if a in values else self.constants[a]
            return a.of(pictures) if isinstance(a, Sized) else a

        args: Any = fx.node.map_aggregate(node.args, look)
        kwargs: Any = fx.node.map_aggregate(node.kwargs, look)
        return args, kwargs

    def run(self, node: fx.Node, values: Values, pictures: int, rules: Mapping[str, Rule] | None = None) -> Any:
        """Run one operation on values that were computed before."""
        args, kwargs = self.arguments(node, values, pictures)
        assert callable(node.target)
        rule = rules.get(word(node)) if rules else None
        if rule:
            return rule(self, node, args, kwargs)
        return node.target(*(with_gap(args) if word(node) == "convolution" else args), **kwargs)


def everything_through(graph: Graph, through: fx.Node) -> bool:
    """Whether the logits depend on the picture by way of one node alone."""
    reached = {graph.start}
    for node in graph.nodes:
        if node is not through and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
    return graph.end not in reached


def word(node: fx.Node) -> str:
    """The name of a node's operation: "convolution", "relu", "getitem"."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket.__name__)
    return target if isinstance(target, str) else target.__name__


def copied(into: Tensor, source: Tensor) -> Tensor:
    """What a tensor is after source was written over it; unlike aten.copy, gradients flow through it."""
    return source.to(into.dtype).expand_as(into)


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A scale and a shift for each channel of x (B, C, *s)."""
    column = (-1,) + (1,) * (x.dim() - 2)
    return x * scale.view(column) + shift.view(column)
