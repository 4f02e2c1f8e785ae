"""A recorded run made ready to be followed: views are views, constants are worked out, BatchNorm is folded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from clearsight.errors import Refused
from clearsight.internals.graph import Graph, Sized, Unrecordable, Values, affine, aten, copied, word
from clearsight.internals.tape import Taped, kind_of


def prepared(recorded: Taped, *, fold: bool) -> Graph:
    """Views that were copies become views, constants are worked out, BatchNorm becomes part of what is before it."""
    g = recorded.graph
    constants: Values = {}
    for node in g.nodes:
        if node.op == "get_attr":
            constants[node] = recorded.tensors[str(node.target)].detach()
        elif node.op == "call_function":
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise Unrecordable(
                    f"the network draws random numbers ({word(node)}), so it cannot be taken apart into its "
                    "operations: use a gradient, class-activation or perturbation method"
                )
            node.target = _as_view(node.target)
            if word(node) in _FILLED:  # of the shape that it names, whatever the picture is
                node.target, node.kwargs = _as_constant(node)
                node.args = node.args[1:]
            if word(node) == "as_strided_":  # pooling of channels_last pictures; where it is more, graph_of sees it
                node.target, node.args = aten.reshape.default, node.args[:2]
            node.target = _out_of_place(node.target)
            if node.target is copied and kind_of(node) == kind_of(node.args[1]):  # all of it is written over
                node.replace_all_uses_with(node.args[1])
    for node in reversed(list(g.nodes)):  # what forward wrote into its input is written back at the end: not into ours
        if node.op == "call_function" and node.target is aten.copy_.default and not node.users:
            g.erase_node(node)
    (start,) = (n for n in g.nodes if n.op == "placeholder")
    (end,) = next(n for n in g.nodes if n.op == "output").all_input_nodes
    moving: set[fx.Node] = {start}
    for node in g.nodes:
        if node.op == "call_function" and any(n in moving for n in node.all_input_nodes):
            moving.add(node)
    if end not in moving:
        raise Refused("the network's scores do not depend on the picture: let forward use its input")
    graph = Graph([], constants, moving, start, end, None, recorded)
    growing: set[fx.Node] = set()
    for node in g.nodes:
        if node.op == "call_function" and node not in moving:
            if _has_a_size(node) or not growing.isdisjoint(node.all_input_nodes):
                growing.add(node)
            else:
                constants[node] = graph.run(node, {}, 0)
    if fold:
        _without_batch_norm(graph)
    _with_log_softmax(graph)
    g.eliminate_dead_code()
    graph.end = next(n for n in g.nodes if n.op == "output").all_input_nodes[0]
    graph.nodes = [n for n in g.nodes if n.op == "call_function" and n not in constants]
    marked = [n for n in graph.nodes if word(n) == "mark"]
    if len(marked) > 1:
        raise Refused("the layer runs more than once in a forward pass: name another with layer=")
    graph.marked = marked[0] if marked else None
    return graph


def _as_view(target: Any) -> Any:
    """aten.view_copy -> aten.view: functionalisation records views as copies.  A view may copy where it has to."""
    if target is aten.copy.default:
        return copied
    if target in (aten.view.default, aten._unsafe_view.default, aten.view_copy.default):
        return aten.reshape.default
    if isinstance(target, torch._ops.OpOverload) and target.overloadpacket.__name__.endswith("_copy"):
        packet = getattr(aten, target.overloadpacket.__name__.removesuffix("_copy"), None)
        return getattr(packet, target._overloadname, target) if packet is not None else target
    return target


_FILLED = {"new_zeros": aten.zeros.default, "new_ones": aten.ones.default, "new_full": aten.full.default}


def _as_constant(node: fx.Node) -> tuple[Any, dict[str, Any]]:
    """x.new_zeros(shape) -> zeros(shape) of the same type: such a mask does not depend on the picture."""
    kind = kind_of(node)
    assert kind is not None
    return _FILLED[word(node)], {"dtype": kind.dtype, "device": kind.device}


def _out_of_place(target: Any) -> Any:
    """aten.add_ -> aten.add: what PyTorch's own functions do in place in their own copies; it is read by its result."""
    if not isinstance(target, torch._ops.OpOverload):
        return target
    if torch.Tag.pointwise not in target.tags and torch.Tag.inplace_view not in target.tags:
        return target
    name = target.overloadpacket.__name__
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") and name[0] != "_" else None
    return target if packet is None else getattr(packet, target._overloadname, target)


def _has_a_size(node: fx.Node) -> bool:
    """Whether one of its arguments is a size that grows with the number of pictures."""
    sized: list[Sized] = []
    fx.node.map_aggregate((node.args, node.kwargs), lambda a: sized.append(a) if isinstance(a, Sized) else a)
    return bool(sized)


def _with_log_softmax(graph: Graph) -> None:
    """The logarithm of probabilities, by which they become logits, is one operation with the softmax before it."""
    g = graph.owner.graph
    for node in list(g.nodes):
        if node.op != "call_function" or word(node) != "log":
            continue
        source = node.args[0]
        while isinstance(source, fx.Node) and source.op == "call_function" and word(source) in ("clamp_min", "clamp"):
            source = source.args[0]
        if isinstance(source, fx.Node) and source.op == "call_function" and word(source) == "_softmax":
            with g.inserting_before(node):
                new = g.call_function(aten._log_softmax.default, tuple(source.args))
            graph.moving.add(new)
            node.replace_all_uses_with(new)


_BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")


def _without_batch_norm(graph: Graph) -> None:
    """BatchNorm in eval mode is a scale and a shift for each channel: part of the convolution before it, or alone."""
    g = graph.owner.graph
    for node in list(g.nodes):
        if node.op != "call_function" or word(node) not in _BATCH_NORMS or node not in graph.moving:
            continue
        if any(isinstance(a, fx.Node) and a not in graph.constants for a in node.args[1:5]) or node.args[3] is None:
            continue  # the statistics are the picture's own, as in InstanceNorm
        args, _ = graph.arguments(node, {node.args[0]: None}, 0)
        gamma, beta, mean, var = args[1:5]
        scale = (var + args[-1]).rsqrt() * (1 if gamma is None else gamma)
        shift = -mean * scale + (0 if beta is None else beta)
        out = next(u for u in node.users if word(u) == "getitem" and u.args[1] == 0)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        with g.inserting_before(node):
            if _takes_a_scale(graph, source):
                weight, bias = (graph.constants.get(a) if isinstance(a, fx.Node) else a for a in source.args[1:3])
                assert isinstance(weight, Tensor)
                wide = scale.view(-1, *[1] * (weight.dim() - 1))
                new_weight = _constant(graph, weight * wide)
                new_bias = _constant(graph, shift if bias is None else bias * scale + shift)
                new = g.call_function(
                    aten.convolution.default, (source.args[0], new_weight, new_bias, *source.args[3:])
                )
            else:
                new = g.call_function(affine, (source, _constant(graph, scale), _constant(graph, shift)))
        graph.moving.add(new)
        out.replace_all_uses_with(new)


def _takes_a_scale(graph: Graph, node: fx.Node) -> bool:
    """A convolution by constant weights that only the BatchNorm reads, and that is not a transposed one."""
    if word(node) != "convolution" or len(node.users) != 1 or node.args[6]:
        return False
    return all(a is None or a in graph.constants for a in node.args[1:3])


def _constant(graph: Graph, value: Tensor) -> fx.Node:
    name = f"folded_{len(graph.constants)}"
    graph.owner.tensors[name] = value.detach()
    node = graph.owner.graph.get_attr(name)
    graph.constants[node] = value.detach()
    return node
