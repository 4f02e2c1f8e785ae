"""The part of a network after a layer, run alone: for methods that change the layer's output many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from clearsight.core import passes
from clearsight.core.model import Model
from clearsight.internals.graph import Graph, Unrecordable, Values
from clearsight.internals.layers import activations, layout_of, module_at
from clearsight.internals.places import as_maps
from clearsight.internals.recording import graph_of

ForwardFrom = Callable[[Tensor, Tensor], Tensor]


def forward_from(model: Model, x: Tensor, layer: str) -> tuple[Tensor, ForwardFrom]:
    """The output of a layer, (B, K, *s), and a function from other outputs to logits, for pictures x (B, C, *S).

    The function takes rows (n,), which say of which picture each value is, and values (n, K, *s), and gives logits
    (n, classes).  Of a network that can be recorded it runs no more than what reads the layer's output, and that is not
    counted as a pass; of any other, the whole.  What reaches the logits past the layer stays as it was for the picture.

    Refused: layers that do not give feature maps, or that run several times.
    """
    a, _ = activations(model, x, layer)
    try:
        graph = graph_of(model, x[:1], layer)
    except Unrecordable:
        return a, forward_whole(model, x, layer)
    if graph.marked is None:
        return a, forward_whole(model, x, layer)
    return a, forward_recorded(graph, model.normalised(x).to(model.dtype))


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


def forward_recorded(graph: Graph, z: Tensor) -> ForwardFrom:
    """By what was recorded of the network behind the marked layer, for normalised pictures z (B, C, *S)."""
    order, bypassing = _nodes_after(graph)
    fixed_values = _values_of(graph, z, bypassing) if bypassing else {}

    def run(rows: Tensor, values: Tensor) -> Tensor:
        assert graph.marked is not None
        values_of_nodes: Values = {graph.marked: values.to(z)} | {
            node: value[rows] for node, value in fixed_values.items()
        }
        with torch.no_grad():
            out: Tensor = graph.follow(order, values_of_nodes, len(rows), wanted={graph.end})[graph.end]
        return out.float()

    return run


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
