#!/usr/bin/env bash
# torch 2.14.1: the second derivative of a grouped convolution runs group by group for weights that need no gradient.
#
# Why it matters: attacks on explanations, input-gradient penalties and Hessian-vector products differentiate twice with respect to the pixels
# of a frozen network. On a depthwise convolution of 96 channels that costs 98 small convolutions, whose result nobody asked for
# and which is thrown away; mobile networks are made of such layers, and spent a quarter of the time there.
# Expected: the first derivative leaves out the gradient of frozen weights (output_mask), and the layer is linear in its input, so that its
# second derivative with respect to the input is the convolution itself: one more pass.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import torch
from torch.profiler import ProfilerActivity, profile

print("torch", torch.__version__)
torch.set_num_threads(1)


def convolutions(groups):
    """Calls of convolution kernels in one second derivative by the input, and that derivative."""
    torch.manual_seed(0)
    weight = torch.randn(96, 96 // groups, 3, 3)  # needs no gradient
    x = torch.randn(2, 96, 14, 14, requires_grad=True)
    y = torch.nn.functional.conv2d(x, weight, padding=1, groups=groups)
    (g,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        (h,) = torch.autograd.grad((g * g.detach()).sum(), x)
    calls = sum(e.count for e in seen.key_averages() if e.key in ("aten::convolution", "aten::convolution_backward"))
    with torch.no_grad():  # the same by hand: H v = 2 W^T W v
        forward = torch.nn.functional.conv2d(g.detach(), weight, padding=1, groups=groups)
        by_hand = 2 * torch.nn.functional.conv_transpose2d(forward, weight, padding=1, groups=groups)
    assert torch.allclose(h, by_hand, rtol=1e-3, atol=1e-2 * float(by_hand.abs().max()))
    return calls


for groups in (1, 4, 96):
    print(f"{groups:2} groups: {convolutions(groups)} convolutions in the second derivative; by hand 2")
assert convolutions(1) <= 5
assert convolutions(96) > 96
print("as found")
PY
