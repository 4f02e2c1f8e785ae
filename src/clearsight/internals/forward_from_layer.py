"""The part of a network after a layer, run alone: for methods that change the layer's output many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from clearsight.core import passes
from clearsight.core.model import Model
from clearsight.internals.graph import Graph, Unrecordable, Values
from clearsight.internals.layers import activations, layout_of, module_at
from clearsight.internals.places import as_maps
from clearsight.internals.recording import OtherRunError, hold, with_graph
from clearsight.internals.tape import kind_of

ForwardFrom = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Recorded:
    """What follows the marked layer of a graph, for some pictures: from rows (n,) and values (n, K, *s) to logits.

    order: the nodes that read the layer and that the logits need, in order; fixed: for each picture the values that
    they read beside them.  unchanged: the logits of what the layer gave itself, where they were worked out.
    """

    graph: Graph
    marked: fx.Node
    order: list[fx.Node]
    fixed: Values
    unchanged: Tensor | None = None

    def __call__(self, rows: Tensor, values: Tensor) -> Tensor:
        kind = kind_of(self.marked)
        return self.behind([self.marked])(rows, values if kind is None else values.to(kind.dtype))

    def behind(self, chain: list[fx.Node]) -> ForwardFrom:
        """From values of the last node of a chain, from the marked one on, each of which alone reads the one before."""
        after = [node for node in self.order if node not in {*chain}]

        def run(rows: Tensor, values: Tensor) -> Tensor:
            found: Values = {chain[-1]: values} | {node: value[rows] for node, value in self.fixed.items()}
            with torch.no_grad():
                out: Tensor = self.graph.follow(after, found, len(rows), wanted={self.graph.end})[self.graph.end]
            return out.float()

        return run


def forward_from(model: Model, x: Tensor, layer: str) -> tuple[Tensor, ForwardFrom]:
    """The output of a layer, (B, K, *s), and a function from other outputs to logits, for pictures x (B, C, *S).

    The function takes rows (n,), which say of which picture each value is, and values (n, K, *s), and gives logits
    (n, classes).  Of a network that can be recorded it is `Recorded`: it runs no more than what reads the layer's
    output, and that is not counted as a pass.  Of any other it runs the whole.  What reaches the logits past the layer
    stays as it was for the picture.

    Refused: layers that do not give feature maps, or that run several times.
    """
    a, logits = activations(model, x, layer)

    def recorded(graph: Graph, is_new: bool) -> ForwardFrom:
        rest = forward_recorded(graph, lambda: model.normalised(x).to(model.dtype))
        if is_new:
            _refuse_other_shape(graph, a)
            rest = replace(rest, unchanged=rest(torch.arange(len(x)), a))
            hold(model, x, logits_of(rest, a), layer, logits)
        return rest

    try:
        return a, with_graph(model, x, recorded, layer)
    except Unrecordable:
        return a, forward_whole(model, x, layer)


def logits_of(rest: ForwardFrom, a: Tensor) -> Tensor:
    """The logits (B, classes) of what the layer gave itself, a (B, K, *s), by `rest`, a result of `forward_from`."""
    known = rest.unchanged if isinstance(rest, Recorded) else None
    return rest(torch.arange(len(a)), a) if known is None else known


def forward_whole(model: Model, x: Tensor, layer: str) -> ForwardFrom:
    """By passes through all of the network, in which the layer's output is replaced."""
    places = layout_of(model, x, layer)

    def run(rows: Tensor, values: Tensor) -> Tensor:
        def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
            return as_maps(out, places)[1](values.to(out))

        handle = module_at(model, layer).register_forward_hook(hook)
        try:
            with torch.no_grad():
                return model(x[rows]).float()
        finally:
            handle.remove()

    return run


def forward_recorded(graph: Graph, z: Callable[[], Tensor]) -> Recorded:
    """By what was recorded of the network behind the marked layer; z gives the normalised pictures (B, C, *S).

    Unrecordable: what the layer gives is not in the recording.
    """
    if graph.marked is None:
        raise Unrecordable("the scores do not depend on the layer, so what follows it cannot be run alone")
    found = graph.run_of.found
    if "after the layer" not in found:
        found["after the layer"] = _nodes_after(graph)
    order, bypassing = found["after the layer"]
    return Recorded(graph, graph.marked, order, _values_of(graph, z(), bypassing) if bypassing else {})


def _refuse_other_shape(graph: Graph, a: Tensor) -> None:
    """OtherRunError: the layer gave another shape as it was recorded."""
    kind = kind_of(graph.marked) if graph.marked else None
    if kind is not None and kind.shape[1:] != a.shape[1:]:
        raise OtherRunError


def _nodes_after(graph: Graph) -> tuple[list[fx.Node], set[fx.Node]]:
    """The nodes that the logits need and that read the layer, in order; and what those read that does not."""
    dependent = {graph.marked}
    for node in graph.nodes:
        if any(used in dependent for used in node.all_input_nodes):
            dependent.add(node)
    order: list[fx.Node] = []
    bypassing: set[fx.Node] = set()
    to_visit, visited = [graph.end], {graph.marked}
    while to_visit:
        node = to_visit.pop()
        if node in visited:
            continue
        visited.add(node)
        if node in graph.moving and node not in dependent:
            bypassing.add(node)
        elif node not in graph.constants:
            order.append(node)
            to_visit += node.all_input_nodes
    place = {node: i for i, node in enumerate(graph.nodes)}
    return sorted(order, key=place.__getitem__), bypassing


def _values_of(graph: Graph, z: Tensor, wanted: set[fx.Node]) -> Values:
    """Some nodes' values for normalised pictures z, and no others kept longer than they are needed."""
    passes.note(len(z))
    end = 1 + max((i for i, node in enumerate(graph.nodes) if node in wanted), default=-1)
    with torch.no_grad():
        values = graph.follow(graph.nodes[:end], {graph.start: z}, len(z), wanted=wanted)
    return {node: values[node] for node in wanted}
