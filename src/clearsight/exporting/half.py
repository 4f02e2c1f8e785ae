"""A network's graph in float16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearsight.exporting.exported_network import silent
from clearsight.exporting.int8 import weighted_nodes

if TYPE_CHECKING:
    import onnx


def halved(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose weights and activations are float16, from `pixels` and to its outputs in float32.

    The normalisation stays in float32, and so does what comes behind the last layer: probabilities and map.
    """
    import onnx.shape_inference
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    names, weighted = [node.name for node in copy.graph.node], set(weighted_nodes(copy))
    inside = [i for i, name in enumerate(names) if name in weighted] or [0]
    outside = names[: inside[0]] + names[inside[-1] + 1 :]
    with silent():
        found: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True, node_block_list=outside)
    _sort(found)
    del found.graph.value_info[:]  # some still say float32
    typed: onnx.ModelProto = onnx.shape_inference.infer_shapes(found)
    return typed


def _sort(model: onnx.ModelProto) -> None:
    """Put each node behind those whose outputs it takes: the converter adds its casts in any order."""
    graph = model.graph
    known = {t.name for t in graph.initializer} | {i.name for i in graph.input} | {""}
    waiting = list(graph.node)
    ordered: list[onnx.NodeProto] = []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        assert ready, "the converted graph has a circle"
        ordered += ready
        known |= {out for node in ready for out in node.output}
        taken = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in taken]
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
