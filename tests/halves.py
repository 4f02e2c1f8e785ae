"""Networks in half precision, held against the same weights in single precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import networks
from clearsight.core.classifier import Classifier
from clearsight.errors import Refused
from clearsight.internals.layers import activations_and_gradients
from clearsight.runner.run import explain
from slopecheck import TARGET

AT_PIXELS = (
    "saliency", "gradient-x-input", "integrated-gradients", "smooth-grad", "var-grad", "gradient-shap",
    "guided-integrated-gradients", "xrai",
)  # fmt: skip
AT_LAYERS = ("grad-cam", "grad-cam++", "hires-cam", "layer-cam", "xgrad-cam")


def in_half(model: Classifier, dtype: torch.dtype) -> tuple[Classifier, Classifier]:
    """Copies of the model in half precision, and with the weights so rounded in single precision."""
    half = replace(model, net=copy.deepcopy(model.net).to(dtype))
    return half, replace(model, net=copy.deepcopy(half.net).float())


def refusals(half: Classifier, x: Tensor, methods: Sequence[str] = AT_PIXELS) -> Iterator[tuple[str, str]]:
    """Each of the methods, all of which need gradients at the pixels, and why it is refused; "" where it is not."""
    for method in methods:
        try:
            explain(half, x, networks.spelled(method, Path()), TARGET)
        except Refused as e:
            yield method, str(e)
        else:
            yield method, ""


def scores_off(half: Classifier, twin: Classifier, x: Tensor) -> tuple[float, float]:
    """How far the scores of half precision are off, and occlusion's map with windows that do not overlap.

    Both as a share of the largest score.  What the map should be is asked of single precision window by window.
    """
    side = -(-max(x.shape[2:]) // 2)
    versions, wanted = [x], torch.zeros(x.shape[2:])
    for top in (0, side):
        for left in (0, side):
            hidden = x.clone()
            hidden[..., top : top + side, left : left + side] = 0.5
            versions.append(hidden)
    with torch.no_grad():
        right, given = (m(torch.cat(versions)) for m in (twin, half))
    falls = TARGET(right[:1]) - TARGET(right[1:])
    for fall, (top, left) in zip(falls, ((t, s) for t in (0, side) for s in (0, side)), strict=True):
        wanted[top : top + side, left : left + side] = fall
    found = explain(half, x, f"occlusion(window={side}, stride={side}, fill=0.5)", TARGET).maps[0]
    most = float(right.abs().max())
    return float((given - right).abs().max()) / most, float((found - wanted).abs().max()) / most


def layers_off(half: Classifier, twin: Classifier, x: Tensor) -> tuple[float, dict[str, str]]:
    """How far class-activation maps of half precision are off, at the worst, and which methods are refused, and why.

    As a share of what is added up in a map, without its sign, where that is most.
    """
    with twin.undisturbed():
        a, g = activations_and_gradients(twin, x, TARGET, "auto")
    added = max(float((w * a).abs().sum(1).max()) for w in (g, g.mean((2, 3), keepdim=True)))
    worst, refused = 0.0, {}
    for method in AT_LAYERS:
        right = explain(twin, x, method, TARGET)
        try:
            found = explain(half, x, method, TARGET)
        except Refused as e:
            refused[method] = str(e)
            continue
        assert found.method == right.method  # the same layer
        most = max(added, float(right.maps.abs().max()))
        worst = max(worst, float((found.maps - right.maps).abs().max()) / most)
    return worst, refused
