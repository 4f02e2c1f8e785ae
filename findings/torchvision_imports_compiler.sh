#!/usr/bin/env bash
# torchvision 0.29.1: `import torchvision` imports torch's compiler (torch._dynamo) and SymPy, 500 modules, for a decorator and a name.
#
# Why it matters: command lines, data-loading workers and serverless functions that only resize pictures pay it at every start, half of the
# time that torchvision takes to import. torch.compiler.disable marks one function of tv_tensors, and ops.roi_align takes the name of a
# function that says whether a device can be compiled for.
# Expected: torch itself imports its compiler only where something is compiled; the documentation of torchvision does not speak of it.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import sys

import torch

before = {*sys.modules}
compiler = "torch._dynamo" in before
import torchvision

new = [m for m in {*sys.modules} - before if m.startswith(("torch._dynamo", "torch._inductor", "torch._functorch", "sympy"))]
print("torchvision", torchvision.__version__, "- torch._dynamo imported: by torch", compiler, "- by torchvision", "torch._dynamo" in sys.modules)
print(len(new), "modules of the compiler and of SymPy came with it")
assert not compiler
assert "torch._dynamo" in sys.modules
assert len(new) > 200
print("as found")
PY
