"""`--to tensorrt`: model.onnx and a script that builds the engine where the GPU is, and reads its precision back."""

from __future__ import annotations

from pathlib import Path

from clearsight.core.output import write_whole
from clearsight.exporting import to_onnx
from clearsight.exporting.request import Request
from clearsight.exporting.whole_file import WholeFile

NEEDS = to_onnx.NEEDS
PRECISIONS = to_onnx.PRECISIONS
KINDS = ("classifier",)
SCRIPT = "build_engine.py"

_TEXT = '''\
"""Build model.plan from model.onnx on the machine that will run it, and check what it computes in.

    python build_engine.py [--largest 2048] [--batch 8]

Needs TensorRT 10 or newer with its Python package and a GPU; writes model.plan and layers.json beside this file.
Written by Clearsight; it was not run where it was written.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

PRECISION = "{precision}"
CHANNELS = {channels}
SIZE = {size}
WORDS = {{"fp32": "Float", "fp16": "Half", "int8": "Int8"}}
WORK = ("Convolution", "Conv", "MatrixMultiply", "Gemm", "FullyConnected")


def build(here, largest, batch):
    """The engine's bytes.  Precision comes from the graph: it is strongly typed, as TensorRT 11 always is."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse((here / "model.onnx").read_bytes()):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        sys.exit(f"TensorRT cannot read model.onnx: {{errors}}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    usual = (1, 2 * SIZE[0], 2 * SIZE[1], CHANNELS)
    profile.set_shape("picture", (1, 1, 1, CHANNELS), usual, (batch, largest, largest, CHANNELS))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit("TensorRT built no engine: its messages are above")
    return bytes(plan)


def layers(plan):
    """What the engine itself says of each of its layers."""
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    inspector = engine.create_engine_inspector()
    found = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))["Layers"]
    return [layer for layer in found if isinstance(layer, dict)]


def computes_in(found):
    """How many layers with weights compute in which numbers, from the formats of their inputs."""
    counts = Counter()
    for layer in found:
        words = str(layer.get("LayerType", "")) + str(layer.get("Name", ""))
        if any(work.lower() in words.lower() for work in WORK):
            formats = " ".join(str(tensor.get("Format/Datatype", "")) for tensor in layer.get("Inputs", []))
            kind = next((k for k, w in (("int8", "Int8"), ("fp16", "Half"), ("fp32", "Float")) if w in formats), None)
            kind = kind or next((k for k, w in (("fp16", "FP16"), ("fp32", "FP32")) if w in formats), "unknown")
            counts[kind] += 1
    return counts


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--largest", type=int, default=2048, help="longest side of a picture, in pixels")
    options.add_argument("--batch", type=int, default=8, help="most pictures at once")
    given = options.parse_args()
    here = Path(__file__).resolve().parent
    plan = build(here, given.largest, given.batch)
    found = layers(plan)
    counts = computes_in(found)
    (here / "model.plan").write_bytes(plan)
    (here / "layers.json").write_text(json.dumps(found, indent=1))
    print(f"model.plan: {{len(plan) / 1e6:.1f}} MB; layers with weights by what they compute in: {{dict(counts)}}")
    if not counts.get(PRECISION):
        sys.exit(f"this engine computes nothing in {{PRECISION}}, which it was exported as")


if __name__ == "__main__":
    main()
'''

_SHEET = """\
# {name} for TensorRT

`model.onnx` holds the whole model in {precision}; `python build_engine.py` makes `model.plan` of it on the machine
with the GPU that will run it, since an engine fits one kind of GPU and one version of TensorRT. It then reads from the
engine itself what its layers compute in, and ends with status 1 where none computes in {precision}.

**This was not run where it was written.** There was no TensorRT: the comparison beside this file, if there is one, is
of `model.onnx` in ONNX Runtime. Precision comes from the graph (float16 weights, or Q/DQ pairs for int8), because flags
such as `BuilderFlag.FP16` are gone in TensorRT 11. Bicubic or bilinear resizing with antialiasing is part of the graph:
where your version cannot read it, the script says which node it is.
"""


def write(request: Request) -> tuple[str, ...]:
    """Write model.onnx, the script and a sheet on both -> the files' names."""
    files = to_onnx.write(request)
    preprocess, precision = request.built.model.preprocess, request.manifest.precision
    text = _TEXT.format(precision=precision, channels=preprocess.channels, size=tuple(preprocess.size))
    sheet = _SHEET.format(name=request.manifest.source or "A model", precision=precision)
    write_whole(request.folder / SCRIPT, text)
    write_whole(request.folder / "TENSORRT.md", sheet)
    return (*files, SCRIPT, "TENSORRT.md")


def notes(request: Request) -> list[str]:
    """What was not done."""
    return [f"No engine was built here: run python {request.folder / SCRIPT} where TensorRT and the GPU are."]


def open_file(folder: Path) -> WholeFile:
    """model.onnx in ONNX Runtime."""
    return to_onnx.open_file(folder)
