"""Which layers of an 8-bit graph stay in float, so that it answers as the network does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.engines.manifest import LOGITS, PIXELS, PROBABILITIES, VALUES
from clearsight.exporting.int8 import quantise, weighted_nodes
from clearsight.exporting.int8_rounding import rounded_layers
from clearsight.exporting.layers_apart import layer_of
from clearsight.exporting.parity import same_answers
from clearsight.exporting.whole_file import onnx_session

if TYPE_CHECKING:
    import onnx

_SEEN = 16  # pictures over which the errors of layers are measured
_ROUNDED = 48  # pictures on which weights are rounded
_HALVED = 2  # graphs more that are tried, to leave fewer layers in float
_LOT = 8


@dataclass(frozen=True)
class Try:
    """One graph of the search: how many layers stay in float, and the share of calibration pictures that agree."""

    in_float: int
    agreement: float


@dataclass(frozen=True)
class Int8:
    """The graph that was chosen.

    Args:
        graph: the network in 8 bits.
        in_float: the layers that stay in float, as the network names them.
        layers: how many layers have weights.
        tries: the graphs that were tried, in their order.
        moved: by layer, how far the logits move where it alone is in 8 bits (see `sensitivities`); empty where all
            could be.
        work: the share of the multiply-adds that is in layers in 8 bits.
    """

    graph: onnx.ModelProto
    in_float: tuple[str, ...]
    layers: int
    tries: tuple[Try, ...]
    moved: dict[str, float]
    work: float


def int8_graph(
    model: Classifier,
    graph: onnx.ModelProto,
    pixels: Tensor,
    agree: float,
    tell: Callable[[str, int, int], None],
) -> Int8:
    """Quantise all layers, and leave the worst in float until the calibration pictures agree, with a margin.

    Worst is the layer that moves the logits most where it alone is in 8 bits.  One, two, four, ... layers are left in
    float, up to all but one; then the number is halved back towards the last that failed.  The margin: at most half as
    many pictures may change as `agree` allows, since other pictures agree a little less.  Where that takes more than a
    quarter of the layers, a graph that holds without the margin is taken; where none holds, the one that agrees most.

    Args:
        model: the network's Classifier.
        graph: its float graph, from `pixels`.
        pixels: the calibration pictures (N, C, h, w).
        agree: the share of pictures that must get the same answer.
        tell: called with the name of the step, and how far it is.
    """
    weighted = weighted_nodes(graph)
    names = {node.name: layer_of(node) or node.name for node in graph.graph.node}
    chances = VALUES if model.scores == "values" else PROBABILITIES
    wanted = _outputs(graph, pixels, chances)
    tell("rounding", 0, 1)
    rounded = rounded_layers(graph, weighted, pixels[:_ROUNDED])
    tries: list[Try] = []

    def tried(kept: list[str]) -> tuple[float, onnx.ModelProto]:
        tell("quantising", len(tries), len(tries) + 1)
        found = quantise(graph, pixels, kept, rounded)
        agreement = float(same_answers(model, wanted, _outputs(found, pixels, chances)).mean())
        tries.append(Try(len(kept), agreement))
        return agreement, found

    agreement, quantised = tried([])
    moved: dict[str, float] = {}
    kept: list[str] = []
    if agreement < agree + (1 - agree) / 2 and agree > 0 and len(weighted) > 1:
        moved = sensitivities(graph, quantised, pixels[:_SEEN], tell)
        worst = sorted(weighted, key=lambda name: -moved[name])
        kept, quantised = fewest(worst, (agreement, quantised), agree, tried)
    work = multiply_adds(graph, pixels[:1])
    share = sum(work[name] for name in weighted if name not in kept) / max(1, sum(work.values()))
    in_float = tuple(names[name] for name in kept)
    return Int8(quantised, in_float, len(weighted), tuple(tries), {names[k]: v for k, v in moved.items()}, share)


def fewest(
    worst: list[str],
    first: tuple[float, onnx.ModelProto],
    agree: float,
    tried: Callable[[list[str]], tuple[float, onnx.ModelProto]],
) -> tuple[list[str], onnx.ModelProto]:
    """The first layers of this order, as few as hold (see `int8_graph`), and their graph."""
    margin, most = agree + (1 - agree) / 2 if agree < 1 else agree, len(worst) - 1
    found, count = {0: first}, 1
    while True:
        best = max(found[k][0] for k in found)
        if best >= margin or max(found) == most or (best >= agree and 4 * count > len(worst)):
            break
        count = min(count, most)
        found[count] = tried(worst[:count])
        count *= 2
    needed = next((bar for bar in (margin, agree) if best >= bar), best)
    high = min(k for k in found if found[k][0] >= needed)
    low = max((k for k in found if k < high), default=0)
    for _ in range(_HALVED):
        middle = (low + high) // 2
        if middle <= low:
            break
        found[middle] = tried(worst[:middle])
        low, high = (low, middle) if found[middle][0] >= needed else (middle, high)
    return worst[:high], found[high][1]


def multiply_adds(graph: onnx.ModelProto, pixels: Tensor) -> dict[str, int]:
    """By operation with weights: how many products of two numbers it sums for one picture."""
    import onnx

    weighted = set(weighted_nodes(graph))
    nodes = [node for node in graph.graph.node if node.name in weighted]
    exposed, have = onnx.ModelProto(), {output.name for output in graph.graph.output}
    exposed.CopyFrom(graph)
    outputs = [node.output[0] for node in nodes]
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs if name not in have)
    given = onnx_session(exposed).run(outputs, {PIXELS: pixels[:1].numpy()})
    sizes = {t.name: t.dims for t in graph.graph.initializer}
    found = {}
    for node, value in zip(nodes, given, strict=True):
        dims = next(sizes[name] for name in node.input if name in sizes)
        each = int(torch.tensor(list(dims)).prod()) // (dims[0] if node.op_type == "Conv" else value.shape[-1])
        found[node.name] = value.size * each
    return found


def sensitivities(
    graph: onnx.ModelProto, quantised: onnx.ModelProto, pixels: Tensor, tell: Callable[[str, int, int], None]
) -> dict[str, float]:
    """By operation with weights: how far the logits move where it alone is in 8 bits, as a share of their norm."""
    wanted = _outputs(graph, pixels, LOGITS)
    found = {}
    names = weighted_nodes(graph)
    for k, name in enumerate(names):
        tell("layer by layer", k, len(names))
        moved = _outputs(only_one(graph, quantised, name), pixels, LOGITS) - wanted
        found[name] = float(moved.norm() / wanted.norm().clamp_min(1e-12))
    return found


def only_one(graph: onnx.ModelProto, quantised: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The float graph with one operation's input and weights in 8 bits, as the quantised graph has them."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    made = {out: node for node in quantised.graph.node for out in node.output}
    constants = {t.name: t for t in quantised.graph.initializer}
    there = next(node for node in quantised.graph.node if node.name == name)
    at, node = next((i, node) for i, node in enumerate(model.graph.node) if node.name == name)
    added: list[onnx.NodeProto] = []
    for i, given in enumerate(there.input[:2]):
        back = made.get(given)
        if back is None or back.op_type != "DequantizeLinear":
            continue
        steps = [back] if back.input[0] in constants else [made[back.input[0]], back]
        copies = [onnx.NodeProto.FromString(step.SerializeToString()) for step in steps]
        if len(copies) == 2:
            copies[0].input[0] = node.input[i]
        for copy in copies:
            model.graph.initializer.extend(
                constants[k]
                for k in copy.input
                if k in constants and k not in {t.name for t in model.graph.initializer}
            )
        added += copies
        node.input[i] = copies[-1].output[0]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *added, *nodes[at:]])
    return model


def _outputs(graph: onnx.ModelProto, pixels: Tensor, name: str) -> Tensor:
    """One output (N, K) of a graph from `pixels`."""
    session = onnx_session(graph)
    lots = [session.run([name], {PIXELS: pixels[i : i + _LOT].numpy()})[0] for i in range(0, len(pixels), _LOT)]
    return torch.cat([torch.from_numpy(lot) for lot in lots])
