"""Forward passes without a way back, by what was recorded of the network.

BatchNorm is part of the convolution before it, and so is the activation after it: one operation of oneDNN, which has
its values in the processor's cache while it works on them.  PyTorch's own compiler runs networks by the same operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from clearsight.core import passes
from clearsight.core.model import Model
from clearsight.core.remembered import once
from clearsight.core.stand_ins import StandIn, standing_in
from clearsight.core.weight_digest import weight_digest
from clearsight.errors import Refused
from clearsight.internals.graph import Graph, Rule, word
from clearsight.internals.recording import graph_of

PAYS = 100  # pictures; a recording takes about 30 passes' time, and a fused pass half a plain one's (FCOS, 224 pixels)
_SAME = 1e-5  # of the largest logit: how far those of the fused operations may be from the network's
_OPERATIONS = ("_convolution_pointwise", "_reorder_convolution_weight")
_ACTIVATIONS = {"relu": "relu", "silu": "swish", "hardtanh": "hardtanh"}  # and what oneDNN calls them


@contextmanager
def fused_forward(model: Model, x: Tensor, pictures: int) -> Iterator[None]:
    """Inside, pictures like x (B, C, *S) that need no gradient go forward fused, where it pays to record the network.

    pictures: how many will go forward: `PAYS` or more.  Whether the network was recorded before does not count: what
    comes out is the same to the bit whatever this process did earlier.

    Their logits are the network's up to rounding.  The network itself is asked where anything hooks into it, where its
    weights are not what they were, and on other devices and in other types than float32 on the CPU.
    """
    run = (
        once(model.net, ("fused", tuple(x.shape[1:])), lambda: _stand_in(model, x))
        if _can_be(model, x, pictures)
        else None
    )
    if run is None:
        yield
        return
    with standing_in(model.net, run):
        yield


def _can_be(model: Model, x: Tensor, pictures: int) -> bool:
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not built or not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS):
        return False
    types = {p.dtype for p in model.net.parameters()} | {x.dtype}
    usual = types == {torch.float32} and model.device.type == x.device.type == "cpu"
    return usual and pictures >= PAYS


def _stand_in(model: Model, x: Tensor) -> StandIn | None:
    """Runs the recorded network, fused; None where it cannot be recorded, or its logits are not the network's."""
    try:
        graph = graph_of(model, x[:1])
    except Refused:
        return None
    rules = fused_rules(graph)
    weights = weight_digest(model.net)

    def run(z: Tensor) -> Tensor | None:
        alike = z.shape[1:] == x.shape[1:] and z.dtype == torch.float32 and z.device == x.device
        if not alike or weight_digest(model.net) != weights or passes.is_hooked(model.net.modules()):
            return None
        passes.note(len(z))
        return _logits(graph, rules, z)

    with passes.uncounted(), torch.no_grad():
        z = model.normalised(x[:1])
        wanted, found = model.from_normalised(z.clone()), _logits(graph, rules, z)
    if found.shape != wanted.shape or bool(((found - wanted).abs() > _SAME * _size(wanted)).any()):
        return None
    return run


def _size(outputs: Tensor) -> Tensor:
    """How large the numbers are that are compared: of candidates (B, N, 5 + K) pixels and logits each by themselves."""
    return outputs.abs().amax((0, 1)).clamp_min(1) if outputs.dim() == 3 else outputs.abs().max()


def _logits(graph: Graph, rules: dict[str, Rule], z: Tensor) -> Tensor:
    with torch.no_grad():
        z = z.contiguous(memory_format=torch.channels_last) if z.dim() == 4 else z
        out: Tensor = graph.follow(graph.nodes, {graph.start: z}, len(z), rules=rules, wanted={graph.end})[graph.end]
        return out


def fused_rules(graph: Graph) -> dict[str, Rule]:
    """Rules for `Graph` by which a convolution of pictures and the activation after it are one operation.

    Its weights are kept in oneDNN's own order: brought there at each run, those of a ResNet-18 take longer than a
    picture of 64 x 64 pixels.
    """
    read_by = {n: _activation_after(n) for n in graph.nodes if _is_plain_convolution(graph, n)}
    done = {reader for reader in read_by.values() if reader is not None}
    packed: dict[fx.Node, Tensor] = {}
    borders = {n: border for n in read_by if (border := _border_of(n)) is not None}
    widened = {n: _widened(graph, n, border) for n, border in borders.items()}
    without_padding = {*borders.values()}

    def convolution(_graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        if node not in read_by:
            return run(*args, **kwargs)
        x, weight, bias, stride, padding, dilation, _, _, groups = args
        weight, padding = widened.get(node, (weight, padding))
        if node not in packed:
            packed[node] = torch.ops.mkldnn._reorder_convolution_weight(
                weight, padding, stride, dilation, groups, [*x.shape]
            )
        return torch.ops.mkldnn._convolution_pointwise.default(
            x, packed[node], bias, padding, stride, dilation, groups, *_in_words(read_by[node])
        )

    def activation(_graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        return args[0] if node in done else run(*args, **kwargs)

    def padding(_graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        return args[0] if node in without_padding else run(*args, **kwargs)

    rules: dict[str, Rule] = {"convolution": convolution, "constant_pad_nd": padding}
    return rules | dict.fromkeys(_ACTIVATIONS, activation)


def _is_plain_convolution(graph: Graph, node: fx.Node) -> bool:
    """Of pictures by constant weights, and not a transposed one."""
    if word(node) != "convolution" or node.args[6]:
        return False
    weight = graph.constants.get(node.args[1])  # type: ignore[arg-type]
    bias_is_constant = node.args[2] is None or node.args[2] in graph.constants
    return isinstance(weight, Tensor) and weight.dim() == 4 and bias_is_constant


def _border_of(node: fx.Node) -> fx.Node | None:
    """What puts a border of zeros around a picture for a convolution of each channel by itself, which alone reads it.

    So "same" padding of TensorFlow's networks, which is wider on one side, is done before a convolution without any.
    """
    border = node.args[0]
    if not isinstance(border, fx.Node) or word(border) != "constant_pad_nd" or len(border.users) != 1:
        return None
    given: Any = border.args
    _, _, _, _, padding, dilation, _, _, groups = cast("tuple[Any, ...]", node.args)
    by_itself = groups > 1 and not any(padding) and set(dilation) == {1}
    zeros = (given[2] if len(given) > 2 else border.kwargs.get("value", 0)) == 0
    return border if by_itself and zeros and len(given[1]) == 4 and min(given[1]) >= 0 else None


def _widened(graph: Graph, node: fx.Node, border: fx.Node) -> tuple[Tensor, list[int]]:
    """A convolution's kernel (K, C, h, w) with lines of zeros on the narrower sides of a border, and its even width.

    By these the convolution has the border in it: writing the picture again with zeros around it takes longer.
    """
    weight, widths = graph.constants[cast("fx.Node", node.args[1])], cast("list[int]", border.args[1])
    left, right, top, bottom = widths
    lines = [max(right - left, 0), max(left - right, 0), max(bottom - top, 0), max(top - bottom, 0)]
    return F.pad(weight, lines), [max(top, bottom), max(left, right)]


def _activation_after(node: fx.Node) -> fx.Node | None:
    """The activation that alone reads what a convolution gives."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and word(readers[0]) in _ACTIVATIONS and not readers[0].kwargs else None


def _in_words(activation: fx.Node | None) -> tuple[str, list[float], str]:
    """oneDNN's name of an activation, its numbers, and how it is computed."""
    if activation is None:
        return "none", [], ""
    name, limits = word(activation), [-1.0, 1.0]
    given: list[Any] = list(activation.args[1:])
    return _ACTIVATIONS[name], [*given, *limits[len(given) :]] if name == "hardtanh" else [], ""
