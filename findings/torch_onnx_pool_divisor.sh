#!/usr/bin/env bash
# torch 2.14.1: torch.onnx.export writes average pooling as if divisor_override were not there, and says nothing.
#
# Why it matters: a network that sums or rescales by such pooling (LeNet-5's subsampling is a sum) is exported without an error, and
# its file answers otherwise: of our LeNet-5 the file and the network agreed on 27 of 100 pictures.
# Expected: an error, as in torch 2.0 ("Unsupported: ONNX export of operator avg_pool2d, divisor_override", pytorch issue 105349).
# The parameter is of nn.AvgPool2d: "if specified, it will be used as divisor, otherwise size of the pooling region will be used."
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6" "onnx==1.23.0" "onnxruntime==1.32.0" "onnxscript==0.7.2"
cd "$d"
"$d/venv/bin/python" -W ignore - <<'PY'
import onnxruntime
import torch
from torch import nn

print("torch", torch.__version__)
found = []
for kind, shape in ((nn.AvgPool2d, (1, 1, 2, 2)), (nn.AvgPool3d, (1, 1, 2, 2, 2))):
    net, x = kind(2, divisor_override=1).eval(), torch.ones(shape)
    program = torch.onnx.export(net, (x,), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    found.append((net(x).item(), float(y.reshape(-1)[0])))
    print(f"{kind.__name__}(2, divisor_override=1) of ones: torch {found[-1][0]:g}, its file {found[-1][1]:g}")
assert found == [(4.0, 1.0), (8.0, 1.0)], found
print("as found")
PY
