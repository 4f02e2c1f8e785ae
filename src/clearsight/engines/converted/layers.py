"""Operators that are layers in torch: what has weights, activations and pools.  One function per operator.

Each takes a Node and gives the layer, or None where the node has the form of a plain operation (see operations.py).
They are found by their names: those of ONNX in small letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.engines.converted.node import Array, Built, Node, Unknown, parameter

_CONVOLUTIONS: dict[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
_MAX_POOLS: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEAN_POOLS: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@dataclass(frozen=True)
class Pad:
    """Fills the borders: sides as torch.nn.functional.pad takes them."""

    sides: tuple[int, ...]
    value: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        return F.pad(x, self.sides, value=self.value)


@dataclass(frozen=True)
class PadToSame:
    """Fills the borders so that a window of that stride has one place for each stride pixels (auto_pad)."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    upper: bool
    value: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        sides: list[int] = []
        for n, window, stride in zip(x.shape[2:], self.window, self.stride, strict=True):
            whole = max(0, (-(-n // stride) - 1) * stride + window - n)
            less = whole // 2
            sides = [*((less, whole - less) if self.upper else (whole - less, less)), *sides]
        return F.pad(x, sides, value=self.value)


def _windows(node: Node, axes: int, value: float = 0.0) -> tuple[dict[str, Any], Any]:
    """Stride, padding and dilation of a node of windows, and what is done before where torch cannot pad like it."""
    a = node.attributes
    stride, dilation = (tuple(a.get(key, [1] * axes)) for key in ("strides", "dilations"))
    pads = a.get("pads", [0] * 2 * axes)
    auto = a.get("auto_pad", "NOTSET")
    plain: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": 0}
    if auto.startswith("SAME"):
        window = tuple((k - 1) * d + 1 for k, d in zip(a["kernel_shape"], dilation, strict=True))
        return plain, PadToSame(window, stride, auto == "SAME_UPPER", value)
    if auto == "VALID" or not any(pads):
        return plain, None
    first, last = pads[:axes], pads[axes:]
    if list(first) == list(last):
        return {**plain, "padding": tuple(first)}, None
    sides = [side for pair in zip(reversed(first), reversed(last), strict=True) for side in pair]
    return plain, Pad(tuple(sides), value)


def conv(node: Node) -> Built:
    weight, bias = _weight(node, 1), node.constant(2)
    if node.has(2) and bias is None:
        raise Unknown("Conv with a bias that depends on the picture")
    axes, groups = weight.ndim - 2, node.attributes.get("group", 1)
    given = Node(node.kind, {"kernel_shape": list(weight.shape[2:]), **node.attributes}, node.inputs, node.constants)
    windows, before = _windows(given, axes)
    layer = _of(_CONVOLUTIONS, weight.ndim, node)(
        weight.shape[1] * groups, weight.shape[0], weight.shape[2:], groups=groups, bias=bias is not None,
        device="meta", **windows,
    )  # fmt: skip
    return Built(_filled(layer, weight=weight, bias=bias), before)


def convtranspose(node: Node) -> Built:
    weight, bias, a = _weight(node, 1), node.constant(2), node.attributes
    axes, groups = weight.ndim - 2, a.get("group", 1)
    pads = a.get("pads", [0] * 2 * axes)
    if node.has(2) and bias is None:
        raise Unknown("ConvTranspose with a bias that depends on the picture")
    if a.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in a or pads[:axes] != pads[axes:]:
        raise Unknown("ConvTranspose that pads its sides by other rules than torch's")
    stride, dilation, more = (
        tuple(a.get(key, [usual] * axes)) for key, usual in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    layer = _of(_TRANSPOSED, weight.ndim, node)(
        weight.shape[0], weight.shape[1] * groups, weight.shape[2:], stride, tuple(pads[:axes]), more, groups,
        bias is not None, dilation, device="meta",
    )  # fmt: skip
    return Built(_filled(layer, weight=weight, bias=bias))


def gemm(node: Node) -> Built | None:
    weight, bias, a = node.constant(1), node.constant(2), node.attributes
    if weight is None or a.get("transA") or (node.has(2) and (bias is None or bias.ndim > 1)):
        return None
    weight = a.get("alpha", 1.0) * (weight if a.get("transB") else weight.T)
    if bias is not None:
        bias = np.broadcast_to(a.get("beta", 1.0) * bias, weight.shape[:1])
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return Built(_filled(layer, weight=weight.astype(np.float32), bias=bias))


def matmul(node: Node) -> Built | None:
    weight = node.constant(1)
    if weight is None or weight.ndim != 2 or node.constant(0) is not None:
        return None
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=False, device="meta")
    return Built(_filled(layer, weight=weight.T))


def batchnormalization(node: Node) -> Built:
    weight, bias, mean, var = (_weight(node, i) for i in range(1, 5))
    if node.attributes.get("training_mode"):
        raise Unknown("BatchNormalization in training mode")
    layer = _of(_NORMS, node.axes or 4, node)(len(weight), eps=node.attributes.get("epsilon", 1e-5))
    layer.weight, layer.bias = parameter(weight), parameter(bias)
    layer.running_mean, layer.running_var = torch.from_numpy(np.array(mean)), torch.from_numpy(np.array(var))
    return Built(layer)


def layernormalization(node: Node) -> Built:
    weight, bias = _weight(node, 1), node.constant(2)
    axis = node.attributes.get("axis", -1)
    if axis not in (-weight.ndim, node.axes - weight.ndim):
        raise Unknown("LayerNormalization whose weights do not stand for its last axes")
    layer = nn.LayerNorm(weight.shape, eps=node.attributes.get("epsilon", 1e-5), bias=bias is not None)
    return Built(_filled(layer, weight=weight, bias=bias))


def relu(node: Node) -> Built:
    return Built(nn.ReLU())


def clip(node: Node) -> Built | None:
    low, high = (node.attributes.get(name, node.constant(i)) for i, name in ((1, "min"), (2, "max")))
    if (node.has(1) and low is None) or (node.has(2) and high is None):
        return None
    bounds = (-float("inf") if low is None else float(low), float("inf") if high is None else float(high))
    if bounds == (0.0, float("inf")):
        return Built(nn.ReLU())
    return Built(nn.ReLU6() if bounds == (0.0, 6.0) else nn.Hardtanh(*bounds))


def leakyrelu(node: Node) -> Built:
    return Built(nn.LeakyReLU(node.attributes.get("alpha", 0.01)))


def elu(node: Node) -> Built:
    return Built(nn.ELU(node.attributes.get("alpha", 1.0)))


def sigmoid(node: Node) -> Built:
    return Built(nn.Sigmoid())


def tanh(node: Node) -> Built:
    return Built(nn.Tanh())


def softplus(node: Node) -> Built:
    return Built(nn.Softplus())


def gelu(node: Node) -> Built:
    return Built(nn.GELU(node.attributes.get("approximate", "none")))


def hardswish(node: Node) -> Built:
    return Built(nn.Hardswish())


def mish(node: Node) -> Built:
    return Built(nn.Mish())


def softmax(node: Node) -> Built:
    return Built(nn.Softmax(node.attributes.get("axis", -1)))


def logsoftmax(node: Node) -> Built:
    return Built(nn.LogSoftmax(node.attributes.get("axis", -1)))


def lrn(node: Node) -> Built:
    a = node.attributes
    return Built(nn.LocalResponseNorm(a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)))


def maxpool(node: Node) -> Built:
    axes = len(node.attributes["kernel_shape"])
    windows, before = _windows(node, axes, -float("inf"))
    ceil = bool(node.attributes.get("ceil_mode", 0))
    return Built(_of(_MAX_POOLS, axes, node)(node.attributes["kernel_shape"], ceil_mode=ceil, **windows), before)


def averagepool(node: Node) -> Built:
    axes = len(node.attributes["kernel_shape"])
    windows, before = _windows(node, axes)
    counts = bool(node.attributes.get("count_include_pad", 0))
    if set(windows.pop("dilation")) != {1} or (before is not None and not counts):
        raise Unknown("AveragePool with dilation, or with a border on one side that is not counted")
    ceil = bool(node.attributes.get("ceil_mode", 0))
    make = _of(_MEAN_POOLS, axes, node)
    layer = make(node.attributes["kernel_shape"], ceil_mode=ceil, count_include_pad=counts, **windows)
    return Built(layer, before)


def globalaveragepool(node: Node) -> Built:
    pools: dict[int, Any] = {3: nn.AdaptiveAvgPool1d, 4: nn.AdaptiveAvgPool2d, 5: nn.AdaptiveAvgPool3d}
    return Built(_of(pools, node.axes or 4, node)(1))


def globalmaxpool(node: Node) -> Built:
    pools: dict[int, Any] = {3: nn.AdaptiveMaxPool1d, 4: nn.AdaptiveMaxPool2d, 5: nn.AdaptiveMaxPool3d}
    return Built(_of(pools, node.axes or 4, node)(1))


def dropout(node: Node) -> Built:
    return Built(nn.Identity())


def identity(node: Node) -> Built:
    return Built(nn.Identity())


def flatten(node: Node) -> Built | None:
    return Built(nn.Flatten()) if node.attributes.get("axis", 1) == 1 else None


def _weight(node: Node, i: int) -> Array:
    weight = node.constant(i)
    if weight is None:
        raise Unknown(f"{node.kind} whose weights depend on the picture")
    return weight


def _of(kinds: dict[int, Any], axes: int, node: Node) -> Any:
    if axes not in kinds:
        raise Unknown(f"{node.kind} on {axes} axes")
    return kinds[axes]


def _filled(layer: nn.Module, **weights: Array | None) -> nn.Module:
    for name, values in weights.items():
        if values is not None:
            setattr(layer, name, parameter(values))
    return layer
