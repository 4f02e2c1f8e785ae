#!/usr/bin/env bash
# torch 2.14.1: what a dynamically quantised Linear answers for one picture depends on the other pictures of the batch.
#
# Why it matters: one scale is taken from the smallest and largest value of the whole batch, so that one bright picture coarsens
# all others. Scores, and here predictions, change with the company a picture keeps, in eval mode; an accuracy worked out in batches is
# not that of serving.
# Expected: rows are independent. The docstring of torch.ao.nn.quantized.dynamic.Linear promises the interface of nn.Linear, whose
# rows are, and says nothing of batches.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" -W ignore - <<'PY'
import torch
from torch import nn

torch.manual_seed(0)
print("torch", torch.__version__, "engine", torch.backends.quantized.engine)
net = nn.Sequential(nn.Linear(64, 10)).eval()
quantised = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
x = torch.rand(200, 64)
bright = torch.cat([x, 20 * torch.rand(1, 64)])  # one more picture, 20 times as bright
with torch.no_grad():
    exact = net(x)
    alone = torch.cat([quantised(row[None]) for row in x])
    beside = quantised(bright)[:200]
    rows = [bool(torch.allclose(net(bright)[:200], exact)), bool(torch.equal(alone, beside))]
print("rows the same alone and in a batch: float", rows[0], "quantised", rows[1])
for name, y in (("alone", alone), ("beside a bright one", beside)):
    other = int((y.argmax(1) != exact.argmax(1)).sum())
    print(f"{name:20} mean error {float((y - exact).abs().mean()):.5f}, predictions that differ from float: {other} of 200")
ratio = float((beside - exact).abs().mean() / (alone - exact).abs().mean())
print(f"the error is {ratio:.1f} times as large")
assert rows == [True, False] and ratio > 3, ratio

# The same by hand: the range of the WHOLE batch, in 127 steps (7 bits) or 255.
weight, bias = quantised[0].weight().dequantize(), quantised[0].bias()
low, high = min(bright.min().item(), 0.0), max(bright.max().item(), 0.0)
off = []
for steps in (127, 255):
    scale = (high - low) / steps
    off.append(float(((torch.round(bright / scale) * scale) @ weight.T + bias - quantised(bright)).abs().max()))
print("one scale for the batch, worked out by hand, is off by at most", min(off))
assert min(off) < 1e-4, off
print("as found")
PY
