#!/usr/bin/env bash
# torch 2.14.1 (oneDNN 3.12): the weights' gradient of a depthwise convolution of four columns and more is worked out as a dense one.
#
# Why it matters: networks for phones are made of depthwise filters, many of 5 by 5. In a training step of EfficientNet-Lite0 on a processor
# the gradients of nine such filters took 56 of 320 ms; its forward pass and its gradient at the input are fast.
# Expected: 25 taps cost 25 / 15 of what 5 by 3 taps cost. Instead a filter of 5 by 5 takes several times as long as its columns 1 to 3
# and 4 to 5 together, cut out of the same pictures: oneDNN says of these `jit_dw`, and of the whole filter `jit`, on blocks of 16 by 16 channels.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import statistics
import time

import torch

print("torch", torch.__version__)
torch.set_num_threads(1)
torch.manual_seed(0)
backward = torch.ops.aten.convolution_backward.default


def gradient(g, x, columns):
    """The gradient of weights (K, 1, 5, columns) of a depthwise convolution of x without borders."""
    k = x.shape[1]
    weight = torch.empty(k, 1, 5, columns)
    return backward(g, x, weight, None, (1, 1), (0, 0), (1, 1), False, (0, 0), k, (False, True, False))[1]


def in_parts(g, x):
    return torch.cat((gradient(g, x[..., :-2], 3), gradient(g, x[..., 3:], 2)), 3)


def seconds(run, *args):
    taken = []
    for _ in range(12):
        began = time.thread_time()
        run(*args)
        taken.append(time.thread_time() - began)
    return statistics.median(taken[2:])


ratios = []
for k, side in ((1152, 4), (480, 7), (240, 14)):
    x = torch.randn(32, k, side + 4, side + 4).to(memory_format=torch.channels_last)
    g = torch.randn(32, k, side, side).to(memory_format=torch.channels_last)
    assert torch.allclose(gradient(g, x, 5), in_parts(g, x), rtol=1e-3, atol=1e-3)
    whole, parts = seconds(gradient, g, x, 5), seconds(in_parts, g, x)
    ratios.append(whole / parts)
    print(f"{k:4} channels of {side:2} pixels: whole {1000 * whole:.1f} ms, in two parts {1000 * parts:.1f} ms")
assert min(ratios) > 1.5
assert max(ratios) > 3
print("as found")
PY
