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
from clearsight.exporting.layers_apart import layer_of
from clearsight.exporting.parity import same_answers
from clearsight.exporting.whole_file import onnx_session

if TYPE_CHECKING:
    import onnx

_SEEN = 16  # pictures over which the errors of layers are measured
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
    """

    graph: onnx.ModelProto
    in_float: tuple[str, ...]
    layers: int
    tries: tuple[Try, ...]
    moved: dict[str, float]


def int8_graph(
    model: Classifier,
    graph: onnx.ModelProto,
    pixels: Tensor,
    agree: float,
    tell: Callable[[str, int, int], None],
) -> Int8:
    """Quantise all layers, and leave the worst in float until the calibration pictures agree, or half are.

    Worst is the layer that moves the logits most where it alone is in 8 bits.

    Args:
        model: the network's Classifier.
        graph: its float graph, from `pixels`.
        pixels: the calibration pictures (N, C, h, w).
        agree: the share of them that must get the same answer.
        tell: called with the name of the step, and how far it is.
    """
    weighted = weighted_nodes(graph)
    names = {node.name: layer_of(node) or node.name for node in graph.graph.node}
    chances = VALUES if model.scores == "values" else PROBABILITIES
    wanted = _outputs(graph, pixels, chances)
    tries: list[Try] = []
    moved: dict[str, float] = {}
    kept: list[str] = []
    while True:
        tell("quantising", len(tries), len(tries) + 1)
        quantised = quantise(graph, pixels, kept)
        agreement = float(same_answers(model, wanted, _outputs(quantised, pixels, chances)).mean())
        tries.append(Try(len(kept), agreement))
        if agreement >= agree or len(kept) >= len(weighted) // 2:
            in_float = tuple(names[name] for name in kept)
            return Int8(quantised, in_float, len(weighted), tuple(tries), {names[k]: v for k, v in moved.items()})
        moved = moved or sensitivities(graph, quantised, pixels[:_SEEN], tell)
        worst = sorted(weighted, key=lambda name: -moved[name])
        kept = worst[: min(max(1, 2 * len(kept)), len(weighted) // 2)]


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
