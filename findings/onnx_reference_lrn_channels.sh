#!/usr/bin/env bash
# onnx 1.23.2: the reference of LRN normalises only as many channels as there are pictures in the batch; of the others it
# gives the input over a constant, so that the answer for a picture depends on how many stand beside it.
#
# Why it matters: the reference evaluator is what one checks other engines and converters against, and AlexNet, GoogLeNet
# and their like have LRN.  ONNX Runtime follows the specification.
# Expected: square_sum[n, c, ...] summed over the channels around c, for every c, as the operator's specification says.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "onnx==1.23.2" "onnxruntime==1.32.0" numpy
"$d/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

x = np.random.default_rng(0).normal(size=(2, 4, 1, 1)).astype(np.float32)
node = helper.make_node("LRN", ["x"], ["y"], size=3, alpha=3.0, beta=1.0, bias=1.0)
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4, 1, 1]) for n in "xy"]
model = helper.make_model(
    helper.make_graph([node], "lrn", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
)
squares = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
by_hand = x / (1 + squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:])
(reference,) = ReferenceEvaluator(model).run(None, {"x": x})
(runtime,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
off = [float(abs(given - by_hand).max(axis=(0, 2, 3))[c]) for given in (reference, runtime) for c in range(4)]
print("2 pictures of 4 channels, largest error by channel: reference", np.round(off[:4], 3), "ONNX Runtime", np.round(off[4:], 3))
assert max(off[:2]) < 1e-6 and min(off[2:4]) > 0.01 and max(off[4:]) < 1e-5
PY
echo "as found"
