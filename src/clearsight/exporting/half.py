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
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    names, weighted = [node.name for node in copy.graph.node], set(weighted_nodes(copy))
    inside = [i for i, name in enumerate(names) if name in weighted] or [0]
    outside = names[: inside[0]] + names[inside[-1] + 1 :]
    with silent():
        found: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True, node_block_list=outside)
    return found
