"""A recorded run made ready to be followed: views are views, constants are worked out, BatchNorm is folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from clearsight.errors import Refused
from clearsight.internals.graph import Graph, Sized, Unrecordable, affine, aten, copied, word
from clearsight.internals.pointwise import is_pointwise
from clearsight.internals.tape import kind_of


def prepared(g: fx.Graph, tensors: Mapping[str, Tensor], *, fold: bool) -> Graph:
    """Views that were copies become views, constants are worked out, BatchNorm becomes part of what is before it.

    g is changed.  tensors: those that its nodes have names for; no value of them is looked at.
    """
    for node in g.nodes:
        if node.op == "call_function":
            _rewrite(node)
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
    settled = {node for node in g.nodes if node.op == "get_attr"}
    growing: set[fx.Node] = set()
    for node in g.nodes:
        if node.op == "call_function" and node not in moving:
            if _has_a_size(node) or not growing.isdisjoint(node.all_input_nodes):
                growing.add(node)
            else:
                settled.add(node)
    if fold:
        _without_batch_norm(g, moving, settled)
    _with_log_softmax(g, moving)
    g.eliminate_dead_code()
    end = next(n for n in g.nodes if n.op == "output").all_input_nodes[0]
    nodes = [n for n in g.nodes if n.op == "call_function" and n not in settled]
    marked = [n for n in nodes if word(n) == "mark"]
    if len(marked) > 1:
        raise Refused("the layer runs more than once in a forward pass: name another with layer=")
    in_order = [n for n in g.nodes if n in settled]
    return Graph(nodes, in_order, moving, start, end, marked[0] if marked else None, g, tensors)


def _rewrite(node: fx.Node) -> None:
    """One operation as it is followed.  Refused: one that draws random numbers."""
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
    source: Any = node.args[1] if node.target is copied else None
    if source is not None and kind_of(node) == kind_of(source):  # all of it is written over
        node.replace_all_uses_with(source)


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
    if not is_pointwise(target) and torch.Tag.inplace_view not in target.tags:
        return target
    name = target.overloadpacket.__name__
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") and name[0] != "_" else None
    return target if packet is None else getattr(packet, target._overloadname, target)


def _has_a_size(node: fx.Node) -> bool:
    """Whether one of its arguments is a size that grows with the number of pictures."""
    sized: list[Sized] = []
    fx.node.map_aggregate((node.args, node.kwargs), lambda a: sized.append(a) if isinstance(a, Sized) else a)
    return bool(sized)


def _with_log_softmax(g: fx.Graph, moving: set[fx.Node]) -> None:
    """The logarithm of probabilities, by which they become logits, is one operation with the softmax before it."""
    for node in list(g.nodes):
        if node.op != "call_function" or word(node) != "log":
            continue
        source = node.args[0]
        while isinstance(source, fx.Node) and source.op == "call_function" and word(source) in ("clamp_min", "clamp"):
            source = source.args[0]
        if isinstance(source, fx.Node) and source.op == "call_function" and word(source) == "_softmax":
            with g.inserting_before(node):
                new = g.call_function(aten._log_softmax.default, tuple(source.args))
            moving.add(new)
            node.replace_all_uses_with(new)


_BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")


def _without_batch_norm(g: fx.Graph, moving: set[fx.Node], settled: set[fx.Node]) -> None:
    """BatchNorm in eval mode is a scale and a shift for each channel: part of the convolution before it, or alone."""

    def call(function: Callable[..., Tensor], *args: Any) -> fx.Node:
        node = g.call_function(function, args)
        settled.add(node)
        return node

    for node in list(g.nodes):
        if node.op != "call_function" or word(node) not in _BATCH_NORMS or node not in moving:
            continue
        if any(isinstance(a, fx.Node) and a not in settled for a in node.args[1:5]) or node.args[3] is None:
            continue  # the statistics are the picture's own, as in InstanceNorm
        gamma, beta, mean, var = node.args[1:5]
        out = next(u for u in node.users if word(u) == "getitem" and u.args[1] == 0)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        with g.inserting_before(node):
            scale = call(_scale, var, gamma, node.args[-1])
            shift = call(_shift, mean, scale, beta)
            if _takes_a_scale(source, settled):
                weight, bias = source.args[1:3]
                new_weight = call(_scaled_weight, weight, scale)
                new_bias = shift if bias is None else call(_scaled_bias, bias, scale, shift)
                new = g.call_function(
                    aten.convolution.default, (source.args[0], new_weight, new_bias, *source.args[3:])
                )
            else:
                new = g.call_function(affine, (source, scale, shift))
        moving.add(new)
        out.replace_all_uses_with(new)


def _scale(var: Tensor, gamma: Tensor | None, eps: float) -> Tensor:
    return (var + eps).rsqrt() * (1 if gamma is None else gamma)


def _shift(mean: Tensor, scale: Tensor, beta: Tensor | None) -> Tensor:
    return -mean * scale + (0 if beta is None else beta)


def _scaled_weight(weight: Tensor, scale: Tensor) -> Tensor:
    return weight * scale.view(-1, *[1] * (weight.dim() - 1))


def _scaled_bias(bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return bias * scale + shift


def _takes_a_scale(node: fx.Node, settled: set[fx.Node]) -> bool:
    """A convolution by constant weights that only the BatchNorm reads, and that is not a transposed one."""
    if word(node) != "convolution" or len(node.users) != 1 or node.args[6]:
        return False
    return all(a is None or a in settled for a in node.args[1:3])
