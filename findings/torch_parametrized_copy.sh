#!/usr/bin/env bash
# torch 2.14.1: a parametrized module and its copy.deepcopy share one class, so that changing the copy breaks the original.
#
# Why it matters: a copy is what one makes so as to change it and keep the network (to fold weights before an export, to randomise or prune
# it). After remove_parametrizations on the copy, the ORIGINAL raises AttributeError; after register_parametrization, KeyError.
# Expected: the module `copy` of Python's library reference is for changing one copy without changing the other, and torch's own modules
# keep to it (weights, hooks and buffers of a deep copy are its own).
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" - <<'PY'
import copy

import torch
from torch import nn
from torch.nn.utils import parametrize


class Twice(nn.Module):
    def forward(self, w):
        return 2 * w


def pair():
    net = nn.Linear(2, 2)
    parametrize.register_parametrization(net, "weight", Twice())
    return net, copy.deepcopy(net)


def runs(net):
    try:
        net(torch.ones(1, 2))
    except (AttributeError, KeyError) as e:
        return f"{type(e).__name__}: {e}"
    return "runs"


print("torch", torch.__version__)
net, other = pair()
print("one class:", type(net) is type(other), "| before:", runs(net), "and", runs(other))
assert type(net) is type(other) and runs(net) == runs(other) == "runs"

parametrize.remove_parametrizations(other, "weight")
print("taken from the copy -> copy:", runs(other), "| original:", runs(net))
assert runs(other) == "runs"
assert runs(net) == "AttributeError: 'ParametrizedLinear' object has no attribute 'weight'"

net, other = pair()
parametrize.register_parametrization(other, "bias", Twice())
print("added to the copy   -> copy:", runs(other), "| original:", runs(net))
assert runs(other) == "runs" and runs(net) == "KeyError: 'bias'"
print("as found")
PY
