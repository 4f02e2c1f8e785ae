#!/usr/bin/env bash
# quantus 0.6.0: model parameter randomisation (MPRT) gives its result for networks with weight_norm or spectral_norm although it has
# changed nothing: reset_parameters() writes into the tensor that torch's parametrization works out anew at each use.
#
# Why it matters: MPRT asks whether maps change when weights do. Here they cannot, every similarity is exactly 1, and a faithful method
# is reported as blind to the weights. No message. (The layers here have no bias; a bias would be drawn anew, the weights still not.)
# Expected: MPRT compares with a network whose layers are re-initialised (Adebayo et al. 2018, arXiv:1810.03292; quantus says the
# same in get_random_layer_generator: "a copy of the model with one additional layer's parameters randomized").
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "torch==2.14.1" "quantus==0.6.0" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
import quantus
import torch
from torch import nn
from torch.nn.utils import parametrizations

print("quantus", version("quantus"), "torch", torch.__version__)
x = np.random.default_rng(0).random((4, 1, 4, 4)).astype(np.float32)
y = np.array([0, 1, 2, 0])


def saliency(model, inputs, targets, **_):
    t = torch.as_tensor(inputs).requires_grad_()
    model(t)[range(len(targets)), targets].sum().backward()
    return t.grad.numpy()


changed = {}
wraps = {"plain": lambda m: m, "weight_norm": parametrizations.weight_norm, "spectral_norm": parametrizations.spectral_norm}
for name, wrap in wraps.items():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), wrap(nn.Linear(16, 8, bias=False)), nn.ReLU(), wrap(nn.Linear(8, 3, bias=False))).eval()
    similar = quantus.similarity_func.correlation_pearson
    metric = quantus.MPRT(similarity_func=similar, disable_warnings=True, display_progressbar=False)
    scores = metric(model=net, x_batch=x, y_batch=y, explain_func=saliency, channel_first=True, device="cpu")
    least = min(np.min(v) for layer, v in scores.items() if layer != "original")
    model = quantus.helpers.utils.get_wrapped_model(net, channel_first=True, softmax=False, device="cpu")
    t = torch.as_tensor(x)
    changed[name] = max(float((other(t) - net(t)).abs().max()) for _, other in model.get_random_layer_generator())
    print(f"{name:13} lowest similarity {least:.3f}; largest change of an output {changed[name]:.3f}")
    assert (least > 0.999999) == (name != "plain"), least

assert changed["plain"] > 0.1 and changed["weight_norm"] == changed["spectral_norm"] == 0.0, changed
print("as found")
PY
