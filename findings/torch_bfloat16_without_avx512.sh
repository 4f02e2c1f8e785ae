#!/usr/bin/env bash
# torch 2.14.1: on a processor that oneDNN runs without AVX-512, training under bfloat16 autocast takes many times as long as in float32.
#
# Why it matters: bfloat16 is chosen for speed, and halves the time of a step where the processor has it. Elsewhere nothing warns.
# A step of torchvision's ResNet-18 for two pictures of 64 pixels, forward and backward, processor time of one thread: 11 to 16 times as
# long as in float32 on an AVX2 processor; for eight pictures of 128 pixels 22 times. `torch.ops.mkldnn._is_mkldnn_bf16_supported()` is False there.
# ONEDNN_MAX_CPU_ISA=AVX2, which oneDNN documents, makes any x86 processor such a one. Fails below 4 times, or if something warns.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q torch==2.14.1 torchvision==0.29.1
ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 "$work/env/bin/python" - <<'PY'
import statistics
import time
import warnings

import torch
import torchvision

warnings.simplefilter("error")  # a warning would be the answer to this finding
torch.manual_seed(0)
net, x = torchvision.models.resnet18(), torch.randn(2, 3, 64, 64)


def step(half: bool) -> float:
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = net(x).float().square().mean()
    loss.backward()
    return time.process_time() - began


step(False), step(True)
plain = statistics.median(step(False) for _ in range(3))
half = statistics.median(step(True) for _ in range(3))
print(f"torch {torch.__version__}: float32 {plain:.3f} s, bfloat16 autocast {half:.3f} s, {half / plain:.1f} times")
assert not torch.ops.mkldnn._is_mkldnn_bf16_supported(), "oneDNN takes bfloat16 here"
assert half > 4 * plain, "no longer many times as long: tell what changed"
PY
