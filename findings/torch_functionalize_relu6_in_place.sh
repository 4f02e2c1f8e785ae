#!/usr/bin/env bash
# torch 2.14.1: torch.func.functionalize refuses relu6_, selu_ and rrelu_, though it exists to remove operations in place.
#
# Why it matters: whoever records a network's operations (converters, quantisers, explainers) by functionalize cannot take one
# that calls F.relu6(x, inplace=True), as small networks for phones do; the module nn.ReLU6(inplace=True), which calls hardtanh_,
# works.  The message speaks of a custom operator outside ATen and asks to mend its schema, though these are PyTorch's own.
# Expected: what the reference of torch.func.functionalize says: it removes mutations from PyTorch's operators.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" numpy
cat > "$d/run.py" <<'PY'
import torch
from torch import nn
from torch.func import functionalize
from torch.nn import functional as F

calls = {
    "nn.ReLU6(inplace=True)": nn.ReLU6(inplace=True),
    "F.relu6(inplace=True)": lambda x: F.relu6(x, inplace=True),
    "F.selu(inplace=True)": lambda x: F.selu(x, inplace=True),
    "F.rrelu(inplace=True)": lambda x: F.rrelu(x, inplace=True),
    "F.silu(inplace=True)": lambda x: F.silu(x, inplace=True),
}
for name, f in calls.items():
    x = torch.linspace(-2, 8, 5)
    with torch.no_grad():
        wanted = f(x * 1)
        try:
            found = functionalize(lambda x: f(x * 1), remove="mutations")(x)
            print(name, "works", torch.equal(found, wanted))
        except RuntimeError as e:
            print(name, "refused:", "custom (non-ATen) operator" in str(e), "aten::" in str(e))
PY
out=$("$d/venv/bin/python" "$d/run.py")
echo "$out"
[ "$out" = "nn.ReLU6(inplace=True) works True
F.relu6(inplace=True) refused: True True
F.selu(inplace=True) refused: True True
F.rrelu(inplace=True) refused: True True
F.silu(inplace=True) works True" ]
echo "as found"
