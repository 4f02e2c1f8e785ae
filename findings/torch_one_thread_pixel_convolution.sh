#!/usr/bin/env bash
# torch 2.14.1: with one thread a convolution of one pixel (1 x 1) of fewer than 16 pictures runs another kernel than with two threads.
#
# Why it matters: half of a ResNet-50 or an EfficientNet are such convolutions, and one thread is what a worker of a DataLoader, of Ray or of
# joblib has. Pictures whose channels lie last, which torch advises for speed, pay most: `_slow_conv2d_forward` takes a multiple of oneDNN's time.
# Expected: the number of threads decides how long a kernel takes, not which one it is; torch's notes on channels last name oneDNN for it.
# Instead: one thread and 15 pictures, `_slow_conv2d_forward`; 16 pictures, or two threads, or a dilation of 2, of which a kernel of one pixel
# sees nothing: `mkldnn_convolution`, with the same values up to rounding.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - 2>/dev/null <<'PY'
import statistics
import time

import torch

print("torch", torch.__version__)
torch.manual_seed(0)
weight = torch.randn(256, 64, 1, 1)


def pictures(n):
    return torch.randn(n, 64, 56, 56).to(memory_format=torch.channels_last)


def kernel(x, threads, dilation=1):
    """The kernel that runs below aten::convolution."""
    torch.set_num_threads(threads)
    with torch.profiler.profile() as seen:
        torch.conv2d(x, weight, dilation=dilation)
    return next(e.key for e in seen.key_averages() if e.key in ("aten::_slow_conv2d_forward", "aten::mkldnn_convolution"))


def seconds(x, dilation):
    taken = []
    for _ in range(15):
        began = time.thread_time()
        torch.conv2d(x, weight, dilation=dilation)
        taken.append(time.thread_time() - began)
    return statistics.median(taken[3:])


found = {}
for n, threads, dilation in ((4, 1, 1), (15, 1, 1), (16, 1, 1), (4, 2, 1), (4, 1, 2)):
    found[n, threads, dilation] = kernel(pictures(n), threads, dilation)
    print(f"{n:2} pictures, {threads} thread(s), dilation {dilation}: {found[n, threads, dilation]}")
assert [k for k, name in found.items() if name.endswith("slow_conv2d_forward")] == [(4, 1, 1), (15, 1, 1)]
torch.set_num_threads(1)
x = pictures(4)
torch.testing.assert_close(torch.conv2d(x, weight), torch.conv2d(x, weight, dilation=2), rtol=1e-4, atol=1e-4)
slow, fast = seconds(x, 1), seconds(x, 2)
print(f"4 pictures, channels last: {1000 * slow:.1f} ms, with a dilation of 2: {1000 * fast:.1f} ms")
assert slow > 1.5 * fast
print("as found")
PY
