"""Static quantisation of a network's graph to 8 bits, a scale for each output channel, calibrated on real pictures."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clearsight.engines.manifest import LOGITS, PIXELS, VALUES
from clearsight.exporting.int8_rounding import Rounded

if TYPE_CHECKING:
    import onnx

_WEIGHTED = ("Conv", "Gemm", "MatMul")
# what moves or joins 8-bit numbers between those: left in float it would turn them back and forth
_BETWEEN = ("Add", "Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Reshape", "Transpose")
_LOT = 8  # pictures that go through at once


def weighted_nodes(graph: onnx.ModelProto) -> list[str]:
    """The names of the operations with weights of their own, in the order of the graph."""
    constants = {t.name for t in graph.graph.initializer}
    return [
        node.name for node in graph.graph.node if node.op_type in _WEIGHTED and any(i in constants for i in node.input)
    ]


def quantise(
    graph: onnx.ModelProto,
    pixels: Tensor,
    in_float: Sequence[str] = (),
    rounded: Mapping[str, Rounded] = MappingProxyType({}),
) -> onnx.ModelProto:
    """A graph whose weights and activations between them are 8-bit integers.

    Weights have a scale for each output channel, activations one for each tensor, from the smallest and largest values
    that the calibration pictures give (entropy calibration writes the same file).  The normalisation and what comes
    behind the last layer, its scores, probabilities and map, stay in float32.

    Args:
        graph: the network, from `pixels`.
        pixels: calibration pictures (N, C, h, w) in [0, 1].
        in_float: names of operations that stay in float32.
        rounded: by operation, weights as whole numbers and what its bias gains; the others are rounded to the nearest.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    nodes = [node.name for node in graph.graph.node if node.op_type in (*_WEIGHTED, *_BETWEEN)]
    weighted = set(weighted_nodes(graph))
    last = max((i for i, node in enumerate(graph.graph.node) if node.name in weighted), default=-1)
    behind = {node.name for node in list(graph.graph.node)[last + 1 :]}
    copy = onnx.ModelProto()  # ONNX Runtime moves the weights of what it is given to a file that it deletes
    copy.CopyFrom(graph)
    rounded = {name: found for name, found in rounded.items() if name not in in_float}
    _shift_biases(copy, rounded)
    with tempfile.TemporaryDirectory() as folder, _unsaid():
        place = Path(folder) / "int8.onnx"
        quantize_static(
            copy,
            place,
            _reader(pixels.numpy()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_quantize=[name for name in nodes if name not in behind],
            nodes_to_exclude=_with_what_follows(graph, in_float),
        )
        quantised: onnx.ModelProto = onnx.load(place)
    _put_weights(graph, quantised, rounded)
    _keep_scores(quantised)
    _keep_in_float(quantised, in_float)
    _unshare(quantised)
    return quantised


def _shift_biases(graph: onnx.ModelProto, rounded: Mapping[str, Rounded]) -> None:
    from onnx import numpy_helper

    constants = {t.name: t for t in graph.graph.initializer}
    for node in graph.graph.node:
        shift = rounded[node.name].shift if node.name in rounded else None
        if shift is not None:
            bias = constants[node.input[2]]
            old = numpy_helper.to_array(bias)
            bias.CopyFrom(numpy_helper.from_array((old + shift.numpy()).astype(old.dtype), bias.name))


def _put_weights(graph: onnx.ModelProto, quantised: onnx.ModelProto, rounded: Mapping[str, Rounded]) -> None:
    """Put the whole numbers where ONNX Runtime has rounded to the nearest: the scales are the same."""
    from onnx import numpy_helper

    constants = {t.name: t for t in quantised.graph.initializer}
    for node in graph.graph.node:
        stored = constants.get(f"{node.input[1]}_quantized") if node.name in rounded else None
        if stored is not None:
            values = rounded[node.name].weights.numpy().astype(np.int8)
            stored.CopyFrom(numpy_helper.from_array(values, stored.name))


def _keep_scores(quantised: onnx.ModelProto) -> None:
    """Give the scores of the last layer as they are: rounded to 255 steps, two classes would tie."""
    nodes = list(quantised.graph.node)
    made = {out: node for node in nodes for out in node.output}
    for name in (LOGITS, VALUES):
        back = made.get(name)
        if back is None or back.op_type != "DequantizeLinear" or back.input[0] not in made:
            continue
        there = made[back.input[0]]
        made[there.input[0]].output[0] = name
        _replace_nodes(quantised, [n for n in nodes if n.name not in (back.name, there.name)])


def _keep_in_float(quantised: onnx.ModelProto, in_float: Sequence[str]) -> None:
    """Put a Clip without bounds before each layer that stays in float and is given 8-bit numbers.

    ONNX Runtime would else quantise its weights by itself when it opens the file, with one scale for all channels: of
    Lite0 with one layer left in float that costs 4 answers of 100.
    """
    from onnx import helper

    made = {out: node for node in quantised.graph.node for out in node.output}
    nodes = []
    for node in quantised.graph.node:
        given = made.get(node.input[0]) if node.name in in_float else None
        if given is not None and given.op_type == "DequantizeLinear":
            nodes.append(
                helper.make_node("Clip", [node.input[0]], [f"{node.name}.input"], f"{node.name}.keep_in_float")
            )
            node.input[0] = f"{node.name}.input"
        nodes.append(node)
    _replace_nodes(quantised, nodes)


def _unshare(quantised: onnx.ModelProto) -> None:
    """Give each reader of 8-bit weights, such as the map beside the last layer, whole numbers of its own.

    Without VNNI, ONNX Runtime 1.32 opens no file with shared ones where it is to add exactly (`cpu_session`).
    """
    constants = {t.name for t in quantised.graph.initializer}
    made = {node.output[0]: node for node in quantised.graph.node if node.input and node.input[0] in constants}
    weights = {name: node for name, node in made.items() if node.op_type == "DequantizeLinear"}
    nodes, read = [], set[str]()
    for node in quantised.graph.node:
        for i, name in enumerate(node.input):
            if name in read & weights.keys():
                nodes.append(_twin(quantised, weights[name], f"{name}.of.{node.output[0]}"))
                node.input[i] = nodes[-1].output[0]
            read.add(name)
        nodes.append(node)
    _replace_nodes(quantised, nodes)


def _replace_nodes(graph: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]  # those of the graph end with it
    del graph.graph.node[:]
    graph.graph.node.extend(copies)


def _twin(quantised: onnx.ModelProto, node: onnx.NodeProto, name: str) -> onnx.NodeProto:
    """A node like this one, with constants of its own, that gives name."""
    from onnx import numpy_helper

    constants = {t.name: t for t in quantised.graph.initializer}
    twin: onnx.NodeProto = type(node).FromString(node.SerializeToString())
    twin.name = twin.output[0] = name
    for i, given in enumerate(node.input):
        twin.input[i] = f"{name}.{i}"
        quantised.graph.initializer.append(
            numpy_helper.from_array(numpy_helper.to_array(constants[given]), twin.input[i])
        )
    return twin


def _with_what_follows(graph: onnx.ModelProto, in_float: Sequence[str]) -> list[str]:
    """These operations, and those without weights that take what they give: activations, sums, pooling.

    In 8 bits those would cost again what the layer in float has saved: a sum of a residual block has few large channels
    that set the scale of all.
    """
    kept, given = set(in_float), set[str]()
    for node in graph.graph.node:
        if node.name in kept or (node.op_type in _BETWEEN and given & set(node.input)):
            kept.add(node.name)
            given |= set(node.output)
    return [node.name for node in graph.graph.node if node.name in kept]


def _reader(pixels: npt.NDArray[np.float32]) -> Any:
    """What ONNX Runtime draws its calibration pictures from."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.lots: Iterator[Any] = (pixels[i : i + _LOT] for i in range(0, len(pixels), _LOT))

        def get_next(self) -> dict[str, Any] | None:
            lot = next(self.lots, None)
            return None if lot is None else {PIXELS: lot}

    return Reader()


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without the advice to fold the graph first, which torch's exporter has done."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
