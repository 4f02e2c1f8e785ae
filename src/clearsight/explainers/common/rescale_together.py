"""DeepLIFT of networks that are linear but for ReLUs and max-pooling: pictures and their baseline are one batch.

Each layer runs once for all of them, the baseline last.  What a ReLU or a pooling hands back, change over change, is
worked out as it runs, and nothing else is kept of the values: the way back through a convolution needs its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from clearsight.core import passes
from clearsight.core.pixel_convolution import with_gap
from clearsight.explainers.common.rescale import given, picked, rise, winners
from clearsight.explainers.common.rescale_rules import POOLS, is_linear, moving_arguments
from clearsight.internals.graph import Graph, Values, word
from clearsight.internals.relu import RELUS, open_range

aten = torch.ops.aten
UNKEPT = frozenset({"convolution", "add", "constant_pad_nd"})  # of which nothing is kept for the way back


class ApartError(Exception):
    """Raised where the values of a network's pictures and of their baseline cannot stand in one batch."""


@dataclass(eq=False)
class _Run:
    """Values of the pictures (B, ...), with their way back, of the baseline (1, ...), and of both (B + 1, ...).

    Those of both are there where an operation gave them in one piece; the others are views of them.
    """

    graph: Graph
    now: Values
    was: Values
    pictures: int
    both: Values = field(default_factory=dict)

    def joined(self, node: fx.Node) -> Tensor:
        """A node's values in one piece."""
        known: Tensor | None = self.both.get(node)
        return torch.cat([self.now[node].detach(), self.was[node]]) if known is None else known

    def constant(self, node: fx.Node) -> Tensor:
        value: Tensor = self.now[node] if node in self.now else self.graph.constants[node]
        return value

    def put(self, node: fx.Node, both: Tensor, now: Tensor) -> None:
        self.both[node], self.now[node], self.was[node] = both, now, both[-1:]

    def let_go(self, nodes: list[fx.Node]) -> None:
        for node in nodes:
            for values in (self.now, self.was, self.both):
                values.pop(node, None)


Step = Callable[[_Run], None]
Plan = list[tuple[Step, list[fx.Node]]]  # for each node how it is run, and whose values are let go after it


def plan_of(graph: Graph) -> Plan | None:
    """How to run a network in this way; None where it is of another kind."""
    found = graph.run_of.found
    if "together" not in found:
        found["together"] = _plan(graph)
    plan: Plan | None = found["together"]
    return plan


def run_together(graph: Graph, z: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of normalised pictures z (B, C, *S), with DeepLIFT's way back, and those of their baseline (1, C, *S).

    ApartError: it cannot be done in this way, which is remembered.
    """
    plan, run = plan_of(graph), _Run(graph, {graph.start: z}, {graph.start: flat}, len(z))
    assert plan is not None
    try:
        for step, gone in plan:
            step(run)
            run.let_go(gone)
    except ApartError:
        graph.run_of.found["together"] = None
        raise
    out: Tensor = run.now[graph.end]
    passes.note(len(z) + 1)
    passes.await_back(out)
    return out, run.was[graph.end]


def _plan(graph: Graph) -> Plan | None:
    kinds = {node: _kind(graph, node) for node in graph.nodes}
    last = {used: node for node in graph.nodes for used in node.all_input_nodes}
    gone: dict[fx.Node, list[fx.Node]] = {}
    for used, node in last.items():
        gone.setdefault(node, []).append(used)
    plan: Plan = []
    for node, kind in kinds.items():
        if kind is None:
            return None
        step: Step = partial(kind, node)
        bounds = open_range(node)
        if kind is _rectified and bounds is not None:
            source = node.all_input_nodes[0]
            over_source = len(source.users) == 1 and kinds.get(source) in _FRESH
            over_gradient = len(node.users) == 1 and kinds.get(next(iter(node.users))) in (_convolved, _padded)
            step = partial(_rectified, node, bounds, over_source, over_gradient)
        plan.append((step, gone.get(node, [])))
    return plan


def _kind(graph: Graph, node: fx.Node) -> Callable[..., None] | None:
    """How a node is run; None: not in this way."""
    name = word(node)
    if node not in graph.moving:
        return _apart
    if name in RELUS:
        return None if open_range(node) is None else _rectified
    if name in POOLS:
        return _pooled
    if not is_linear(graph, node):
        return None
    moving = moving_arguments(graph, node)
    if name == "convolution" and moving == {0}:
        return _convolved
    if name == "add" and moving == {0, 1} and not node.kwargs:
        return _summed
    if name == "constant_pad_nd" and all(type(n) is int for n in _arguments(node)[1]):
        return _padded
    return _apart


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    return node.args


# --- steps ------------------------------------------------------------------------------------------------------------


def _apart(node: fx.Node, run: _Run) -> None:
    """Any linear operation, on the pictures, and on their baseline by itself."""
    now, was = (run.graph.run(node, values, n) for values, n in ((run.now, run.pictures), (run.was, 1)))
    run.now[node], run.was[node] = now, was
    if node not in run.graph.moving or not isinstance(now, Tensor):
        return
    if not now.is_floating_point() or now.shape != (run.pictures, *was.shape[1:]) or len(was) != 1:
        raise ApartError
    if word(node) == "getitem":
        source, part = _arguments(node)
        if source in run.both:
            run.both[node] = run.both[source][part]


def _convolved(node: fx.Node, run: _Run) -> None:
    source, *others = _arguments(node)
    weight, bias, *rest = (run.constant(a) if isinstance(a, fx.Node) else a for a in others)
    with torch.no_grad():
        args = with_gap((run.joined(source), weight, bias, *rest))
        both = aten.convolution(*args)
    run.put(node, both, _Convolved.apply(run.now[source], both[:-1], weight, args[3:]))


def _summed(node: fx.Node, run: _Run) -> None:
    one, other = _arguments(node)
    if run.now[one].shape != run.now[other].shape:
        _apart(node, run)
        return
    with torch.no_grad():
        both = run.joined(one) + run.joined(other)
    run.put(node, both, _Summed.apply(run.now[one], run.now[other], both[:-1]))


def _padded(node: fx.Node, run: _Run) -> None:
    source, pad, *value = _arguments(node)
    if len(pad) >= 2 * run.now[source].dim():  # the axis of pictures too
        raise ApartError
    with torch.no_grad():
        both = aten.constant_pad_nd(run.joined(source), pad, *value)
    run.put(node, both, _Padded.apply(run.now[source], both[:-1], pad))


def _rectified(node: fx.Node, bounds: tuple[float, float], over_source: bool, over_gradient: bool, run: _Run) -> None:
    """A ReLU; over_source, over_gradient: nobody else reads what it works on, or the gradient that comes back."""
    source = node.all_input_nodes[0]
    with torch.no_grad():
        both = run.joined(source)
        out = both if over_source or source not in run.both else torch.empty_like(both)
        slope = rise(both[:-1], both[-1:], out[:-1], out[-1:], *bounds)
    run.put(node, out, given(run.now[source], out[:-1], slope, over=over_gradient))


def _pooled(node: fx.Node, run: _Run) -> None:
    """Max-pooling, which also says where."""
    source, *rest = _arguments(node)
    with torch.no_grad():
        both = run.joined(source)
        out, at = node.target(both, *rest, **node.kwargs)  # type: ignore[operator]
        won = winners(both[:-1], both[-1:], out[:-1], at[:-1], out[-1:], at[-1:])
    run.now[node] = picked(run.now[source], out[:-1], won), at[:-1]
    run.was[node], run.both[node] = (out[-1:], at[-1:]), (out, at)


_FRESH = (_convolved, _summed, _padded)  # what these give is read by its users alone


class _Convolved(torch.autograd.Function):
    """A convolution by constant weights that has been run."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, weight: Tensor, rest: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.lies, ctx.rest = (x.shape, x.stride()), rest
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        nothing = grads[0].new_empty_strided(*ctx.lies)  # the gradient depends on the shape of the input alone
        g = aten.convolution_backward(grads[0], nothing, weight, None, *ctx.rest, [True, False, False])[0]
        return g, None, None, None


class _Summed(torch.autograd.Function):
    """A sum that has been worked out."""

    @staticmethod
    def forward(_ctx: Any, _a: Tensor, _b: Tensor, out: Tensor) -> Tensor:
        return out.detach()

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], grads[0], None


class _Padded(torch.autograd.Function):
    """Maps that have been padded with a number."""

    @staticmethod
    def forward(ctx: Any, _x: Tensor, out: Tensor, pad: list[int]) -> Tensor:
        ctx.pad = pad
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return aten.constant_pad_nd(grads[0], [-n for n in ctx.pad]), None, None
