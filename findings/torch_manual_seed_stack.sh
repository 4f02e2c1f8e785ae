#!/usr/bin/env bash
# torch 2.14.1: torch.manual_seed writes down the whole call stack three times, so seeding costs the more the deeper its caller stands.
#
# Why it matters: reproducible code seeds for every picture, batch or worker. On a machine where no accelerator is in use, each call formats
# the Python stack for CUDA, for XPU and for MTIA; 100 calls deep, as in a test run or a web server, that is 800 times what seeding the CPU's
# generator takes, which gives the same numbers (torch.default_generator.manual_seed).
# Expected: the reference of torch.manual_seed says that it sets the seed of all devices; nothing says that it depends on the caller.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import time
import traceback

import torch

print("torch", torch.__version__)
stacks = []
honest = traceback.format_stack
traceback.format_stack = lambda *a, **k: stacks.append(1) or honest(*a, **k)
torch.manual_seed(1)
traceback.format_stack = honest
print("stacks written down by one torch.manual_seed:", len(stacks))
assert len(stacks) == 3


def at_depth(n, seed):
    if n:
        return at_depth(n - 1, seed)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        seed(1)
        took.append(time.perf_counter() - began)
    return min(took)


torch.manual_seed(5)
one = torch.rand(3)
torch.default_generator.manual_seed(5)
assert torch.equal(one, torch.rand(3))
for depth in (5, 100):
    whole, alone = at_depth(depth, torch.manual_seed), at_depth(depth, torch.default_generator.manual_seed)
    print(f"{depth:3} calls deep: torch.manual_seed {1e6 * whole:6.0f} us, the CPU's generator alone {1e6 * alone:5.1f} us")
    assert whole > 20 * alone
assert at_depth(100, torch.manual_seed) > 3 * at_depth(5, torch.manual_seed)

print("as found")
PY
