#!/usr/bin/env bash
# torch 2.14.1: torch.autograd.grad with grad_outputs imports SymPy, a computer algebra system, to compare two shapes.
#
# Why it matters: command lines, workers and serverless functions pay it at every start, some 0.4 s on two cores. The first
# torch.autograd.grad(y, x, torch.ones_like(y)) imports it; torch.autograd.grad(y.sum(), x), which gives the same, does not.
# Expected: a gradient of plain tensors needs no symbolic shapes, and the reference of torch.autograd.grad speaks of none.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import sys

import torch

x = torch.ones(3, requires_grad=True)
y = 2 * x
before = "sympy" in sys.modules
(summed,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
after_sum = "sympy" in sys.modules
(given,) = torch.autograd.grad(y, x, torch.ones_like(y))
after_given = "sympy" in sys.modules
print("torch", torch.__version__, "- SymPy imported: at the start", before, "- by the sum", after_sum, "- by grad_outputs", after_given)
assert torch.equal(summed, given)
assert (before, after_sum, after_given) == (False, False, True)
print("as found")
PY
