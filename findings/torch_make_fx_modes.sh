#!/usr/bin/env bash
# torch 2.14.1: make_fx makes a new FakeTensorMode for every value that it records, each with the call stack written out.
#
# Why it matters: tools that record a network's operations (quantisers, converters, explainers) wait for it. Recording a plain convolutional
# network with real tensors takes about twice as long as with one mode handed over, torch._guards.tracing(TracingContext(FakeTensorMode())),
# and the deeper the caller stands, the longer. The recorded operations are the same.
# Expected: one mode for one recording, as tracing_mode="fake" has it. Nothing in the reference of make_fx speaks of a cost for each value.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
CUDA_VISIBLE_DEVICES= "$d/venv/bin/python" - <<'PY'
import time

import torch
from torch import nn
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

print("torch", torch.__version__)
net = nn.Sequential(*(m for _ in range(40) for m in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()))).eval()
x = torch.rand(1, 3, 8, 8)
made = []
init = FakeTensorMode.__init__


def counting(self, *args, **options):
    made.append(1)
    init(self, *args, **options)


FakeTensorMode.__init__ = counting


def record(one_mode):
    made.clear()
    began = time.perf_counter()
    with torch.no_grad():
        if one_mode:
            with tracing(TracingContext(FakeTensorMode())):
                graph = make_fx(net)(x)
        else:
            graph = make_fx(net)(x)
    return str(graph.graph), len(made), time.perf_counter() - began


record(False)
plain, many, _ = record(False)
shared, few, _ = record(True)
slow, fast = (min(record(one)[2] for _ in range(5)) for one in (False, True))
values = plain.count("call_function") + plain.count("get_attr")
print(f"{values} recorded nodes: {many} modes made, {few} with one handed over; {slow / fast:.1f} times the time")
assert plain == shared
assert many >= 80
assert few == 1
assert slow > 1.2 * fast
print("as found")
PY
