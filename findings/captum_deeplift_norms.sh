#!/usr/bin/env bash
# captum 0.9.0: DeepLift's attributions against a black baseline sum to 0 whatever the output does, where the network ends in a cosine
# classifier or an RMSNorm (and nearly so for LayerNorm). No warning, no error.
#
# Why it matters: the map looks like any other and is ranked and compared. captum takes the plain gradient for operations that it has
# no rule for; a function that scaling does not change has gradient . x = 0 (Euler), so that all of the change from black is missing.
# Expected: the docstring of DeepLift.attribute says that model(inputs) - model(baselines) must equal the sum of the attributions
# (summation-to-delta of Shrikumar et al. 2017, arXiv:1704.02685). It does, to rounding, for the same layers without the norm.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "captum==0.9.0" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

import torch
import torch.nn.functional as F
from captum.attr import DeepLift
from torch import nn

print("captum", version("captum"), "torch", torch.__version__)


class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 8))

    def forward(self, x):
        return 16 * F.linear(F.normalize(x), F.normalize(self.w))


ends = {"linear": lambda: nn.Linear(8, 3), "cosine": Cosine, "RMSNorm": lambda: nn.RMSNorm(8), "LayerNorm": lambda: nn.LayerNorm(8)}
for name, end in ends.items():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 8, bias=False), nn.ReLU(), end()).double().eval()
    x = torch.rand(1, 12, dtype=torch.float64)
    zero = torch.zeros_like(x)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        total = DeepLift(net).attribute(x, zero, target=0).sum().item()
    change = (net(x) - net(zero))[0, 0].item()
    named = [str(w.message) for w in said if any(t in str(w.message).lower() for t in ("norm", "delta", "support", "converge"))]
    print(f"{name:9} attributions sum to {total:+.6f}, the output changes by {change:+.6f}, warnings about it: {named}")
    assert not named and abs(change) > 0.05
    assert abs(total - change) < 1e-9 if name == "linear" else abs(total) < 0.01 * abs(change), name
    assert name not in ("cosine", "RMSNorm") or abs(total) < 1e-9, name
print("as found")
PY
