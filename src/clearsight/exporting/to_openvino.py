"""`--to openvino`: model.xml with model.bin, and clearsight.json with what the file says about itself."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clearsight.core.output import write_whole
from clearsight.engines.manifest import FILE as MANIFEST
from clearsight.engines.manifest import KEY, LOGITS, PIXELS
from clearsight.engines.openvino_engine import on_cpu
from clearsight.exporting.openvino_pixels import pixels_nodes
from clearsight.exporting.request import Request, left_to_caller
from clearsight.exporting.whole_file import Bytes, Outputs, WholeFile

NEEDS = ("onnx", "onnxruntime", "onnxscript", "openvino")
PRECISIONS = ("fp32", "fp16", "int8")
KINDS = ("classifier", "detector", "segmenter")
_HINT = {"INFERENCE_PRECISION_HINT": "f32"}
_WORK = ("Convolution", "FullyConnected", "MatMul", "GroupConvolution")
_WORDS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}


def write(request: Request) -> tuple[str, ...]:
    """Write the three files -> their names.  Weights are float16 only where that is asked for."""
    import openvino

    assert request.graph is not None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "network.onnx").write_bytes(request.graph.SerializeToString())
        whole = _behind_pixels(openvino.convert_model(place / "network.onnx"), request)
        openvino.save_model(whole, place / "model.xml", compress_to_fp16=request.manifest.precision == "fp16")
        for name in ("model.bin", "model.xml"):
            write_whole(request.folder / name, (place / name).read_bytes())
    write_whole(request.folder / MANIFEST, request.manifest.to_json())
    return ("model.xml", "model.bin", MANIFEST)


def _behind_pixels(network: Any, request: Request) -> Any:
    """The network behind the nodes that make pixels; a classifier's `logits` keep their name inside."""
    import openvino

    picture, pixels = pixels_nodes(request.built.model.preprocess)
    for reader in network.input(PIXELS).get_target_inputs():
        reader.replace_source_output(pixels.output(0))
    results = network.get_results()
    if request.manifest.kind == "classifier":
        results = [r for r in results if LOGITS not in r.input_value(0).get_names()]
    whole = openvino.Model(results, [picture], "clearsight")
    whole.set_rt_info(request.manifest.to_json(), KEY)
    return whole


def notes(request: Request) -> list[str]:
    """What its caller must do, since the file cannot say it."""
    return [
        "OpenVINO computes in bf16 where the processor can, unless it is told otherwise: compile it with "
        "{'INFERENCE_PRECISION_HINT': 'f32'}, as the comparison does.",
        *left_to_caller(request.manifest),
    ]


def open_file(folder: Path) -> WholeFile:
    """The file in OpenVINO on the CPU, in float32."""
    import openvino
    import torch

    core = openvino.Core()
    settings = {**_HINT, "INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    model, second = (core.read_model(folder / "model.xml") for _ in range(2))
    whole = on_cpu(model, settings)
    names = [next(iter(port.get_names())) for port in model.outputs]
    made = second.add_outputs(PIXELS)[0]
    before = on_cpu(openvino.Model([made.get_node()], second.get_parameters()), settings)

    def run(pictures: Bytes) -> Outputs:
        found = whole(pictures)
        return {name: found[i] for i, name in enumerate(names)}

    def pixels(pictures: Bytes) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = before(pictures)[0]
        return found

    size = sum((folder / name).stat().st_size for name in ("model.xml", "model.bin"))
    return WholeFile(f"OpenVINO {openvino.__version__.partition('-')[0]}", run, pixels, size, _computes_in(whole))


def _computes_in(compiled: Any) -> dict[str, int]:
    """What the compiled graph says of each operation with weights."""
    counts: Counter[str] = Counter()
    for op in compiled.get_runtime_model().get_ops():
        about = op.get_rt_info()
        if "layerType" in about and str(about["layerType"].astype(str)) in _WORK:
            word = str(about["runtimePrecision"].astype(str))
            counts[_WORDS.get(word, word)] += 1
    return dict(counts)
