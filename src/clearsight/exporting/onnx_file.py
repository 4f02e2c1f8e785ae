"""One ONNX file from the bytes of pictures to probabilities and the map: built, described, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clearsight._version import __version__
from clearsight.core.model import Model
from clearsight.engines.manifest import KEY, PICTURE, PIXELS, Manifest
from clearsight.errors import Refused
from clearsight.exporting.exported_network import network_of, not_exportable, silent
from clearsight.exporting.heatmap_head import Head
from clearsight.exporting.onnx_detections import detections_graph
from clearsight.exporting.onnx_pixels import pixels_graph

if TYPE_CHECKING:
    import onnx

OPSET = 20  # Resize has antialias from 18 on; 20 is what torch.onnx writes without converting
IR = 10
_LARGEST = 2**31 - 2**20  # bytes: what one protobuf file can hold
_SCOPES = "pkg.torch.onnx.name_scopes"


def network_graph(
    model: Model, head: Head | None, program: torch.export.ExportedProgram
) -> tuple[onnx.ModelProto, torch.export.ExportedProgram]:
    """The network alone, from `pixels` to `logits` and the outputs, as torch's exporter writes it; and what it took.

    What it took is the program in the operations that the exporter knows.

    Tensors keep the names that they have in it (see `layers_apart`).  What the exporter notes of the source code, with
    its paths, is left out.

    Refused: more weights than one file can hold, and what the exporter cannot write.
    """
    weights = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if weights > _LARGEST:
        raise Refused(
            f"the weights take {weights / 2**30:.1f} GiB and one ONNX file holds 2",
            "give --to torch-export or --to openvino",
        )
    n = torch.export.Dim("n")
    with silent():
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: n},),
                input_names=[PIXELS],
                output_names=list(network_of(model, head).outputs),
                external_data=False,
                verbose=False,
            )
        except Exception as e:
            raise not_exportable(e) from e
    assert written is not None
    assert written.exported_program is not None
    proto: onnx.ModelProto = written.model_proto
    _forget_sources(proto)
    return proto, written.exported_program


def _forget_sources(proto: onnx.ModelProto) -> None:
    """Keep of what the exporter notes only in which module a node runs."""
    for node in proto.graph.node:
        scopes = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
        del node.metadata_props[:]
        node.doc_string = ""
        for value in scopes:
            node.metadata_props.add(key=_SCOPES, value=value)
    for part in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del part.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]


def whole_model(network: onnx.ModelProto, manifest: Manifest, model: Model) -> onnx.ModelProto:
    """The network's graph behind that of the pixels, with its manifest; behind a detector's, that of its boxes.

    Refused, as a defect of ours: what onnx.checker does not take.
    """
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(network)
    graph, before = whole.graph, pixels_graph(model.preprocess)
    nodes = [*before.node, *graph.node]
    pixels, given = graph.input[0], graph.output[0]
    assert (pixels.name, given.name) == (PIXELS, manifest.inner)
    kept = [*graph.output] if manifest.kind != "classifier" else [*graph.output][1:]
    inner = [v for v in graph.value_info if v.name not in (PIXELS, given.name)]
    if manifest.kind == "classifier":
        inner.insert(0, given)
    if manifest.suppression is not None:
        count, columns = (d.dim_value for d in [*given.type.tensor_type.shape.dim][1:])
        behind = detections_graph(model.preprocess, manifest.suppression, count, columns - 5)
        nodes += [*behind.node]
        kept += [*behind.output]
        graph.initializer.extend(behind.initializer)
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(before.initializer)
    graph.input.extend(before.input)
    graph.output.extend(kept)
    graph.value_info.extend([*before.output, *inner])
    graph.name = "clearsight"
    graph.input[0].doc_string = "decoded pictures of one size, 8 bits, height before width, channels last"
    _describe(whole, manifest)
    onnx.checker.check_model(whole, full_check=True)
    assert graph.input[0].name == PICTURE
    return whole


def _describe(proto: onnx.ModelProto, manifest: Manifest) -> None:
    """The manifest, and the labels under the name that other tools look for: names, a dict that Python can read."""
    proto.producer_name, proto.producer_version = "clearsight", __version__
    proto.doc_string = f"{manifest.source or 'a network'} with its preprocessing, exported by Clearsight {__version__}"
    for key, value in ((KEY, manifest.to_json()), ("names", repr(dict(enumerate(manifest.labels))))):
        proto.metadata_props.add(key=key, value=value)
