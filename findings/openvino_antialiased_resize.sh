#!/usr/bin/env bash
# openvino 2026.4.1: an ONNX Resize with antialias=1 gives other pixels than ONNX's own reference and ONNX Runtime, by dozens of 255.
# No error, no warning.
#
# Why it matters: a graph with its preprocessing inside answers differently after conversion, as if another library had resized.
# Expected: the ONNX operator Resize says of antialias that the filter is stretched by the scale when it shrinks; onnx.reference
# and ONNX Runtime agree with each other. OpenVINO's own BICUBIC_PILLOW filter is right, so that the resize can be written with it.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "openvino==2026.4.1" "onnxruntime==1.32.0" "onnx==1.23.2" "pillow==13.0.0" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

print("openvino", version("openvino"), "onnxruntime", version("onnxruntime"), "onnx", version("onnx"))
picture = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
x = picture[None, None].astype(np.float32)
pillow = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC)).astype(float)
node = helper.make_node(
    "Resize", ["x", "", "", "size"], ["y"], mode="cubic", cubic_coeff_a=-0.5, antialias=1, exclude_outside=1,
    coordinate_transformation_mode="half_pixel",
)
graph = helper.make_graph(
    [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 40, 50])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 16, 16])],
    [numpy_helper.from_array(np.array([1, 1, 16, 16], np.int64), "size")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "m.onnx")
core = ov.Core()
compiled = core.compile_model(core.read_model("m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
answers = {
    "ONNX's reference": ReferenceEvaluator(model).run(None, {"x": x})[0],
    "ONNX Runtime": ort.InferenceSession("m.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0],
    "OpenVINO": compiled(x)[0],
}
apart = {name: float(np.abs(np.clip(np.round(y[0, 0]), 0, 255) - pillow).max()) for name, y in answers.items()}
for name, most in apart.items():
    print(f"{name:18} largest difference from Pillow's bicubic: {most:.0f} of 255")
assert apart["ONNX's reference"] <= 2 and apart["ONNX Runtime"] <= 2 and apart["OpenVINO"] > 20
print("as found")
PY
