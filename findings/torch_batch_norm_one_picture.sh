#!/usr/bin/env bash
# torch 2.14.1: on the CPU the gradient behind BatchNorm2d in eval mode is wrong for ONE picture whose maps were tokens just before.
#
# Why it matters: tokens that become maps again ((1, N, C) transposed and unflattened, without a copy) go through a norm in LeViT,
# EfficientFormer and XCiT. The scores are right, a batch of two has the right gradient, and one picture alone, as in nearly every
# explanation, has another: a saliency map that looks like any other, and is not the network's.
# Expected: the gradient does not depend on the order in which the same values lie in memory. The notes on memory formats say that
# operators keep the format or choose another, never that results differ.
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
print("torch", torch.__version__)
norm = nn.BatchNorm2d(4).double().eval()
norm.running_var.copy_(torch.rand(4) + 0.5)


def in_rows(maps):
    return maps.contiguous()


def in_tokens(maps):
    """The same values, in the memory of tokens (1, N, C) that were transposed and unflattened."""
    return maps.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).unflatten(2, maps.shape[2:])


def maps_used(out, weights):
    return (out * weights).sum()


def tokens_used(out, weights):
    return (out.flatten(2).transpose(1, 2) * weights.flatten(1).T.contiguous()).sum()


def score(maps, before, used):
    out = norm(before(maps))
    return used(out, torch.arange(out[0].numel(), dtype=torch.float64).view(out.shape[1:]))


off = {}
for pictures in (1, 2):
    x, right = torch.randn(pictures, 4, 3, 5, dtype=torch.float64), None
    for before in (in_rows, in_tokens):
        for used in (maps_used, tokens_used):
            z = x.clone().requires_grad_()
            value = score(z, before, used)
            value.backward()
            assert torch.allclose(value, score(x, in_rows, maps_used))
            right = z.grad if right is None else right  # rows all the way, which finite differences confirm:
            way = torch.randn_like(x)
            assert torch.allclose((right * way).sum(), (score(x + way, before, used) - score(x - way, before, used)) / 2)
            gap = off[pictures, before.__name__, used.__name__] = float((z.grad - right).abs().max() / right.abs().max())
            print(f"{pictures} picture(s), {before.__name__} before, {used.__name__} behind: off by {100 * gap:.1f} %")
wrong = {key for key, gap in off.items() if gap > 1e-6}
print("wrong:", sorted(wrong))
assert wrong == {(1, "in_tokens", "maps_used"), (1, "in_rows", "tokens_used")}, wrong
print("as found")
PY
