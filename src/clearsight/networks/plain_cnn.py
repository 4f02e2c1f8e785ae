"""Convolutions, pooling and dense layers in a row, as in every course since LeCun et al. 1998."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from clearsight.core.catalogue import method
from clearsight.errors import Refused
from clearsight.networks.common.blocks import Norm, conv, numbers, positive, share, takes


@method(paper="doi:10.1109/5.726791")
def plain_cnn(
    classes: int = 10,
    shape: tuple[int, ...] = (1, 28, 28),
    *,
    widths: str = "8,16,16",
    kernel: int = 3,
    strides: str = "1",
    padding: str = "1,0,0",
    pools: str = "2,2,1",
    norm: Norm = "none",
    head: Literal["flatten", "average"] = "flatten",
    dense: str = "64",
    dropout: float = 0.0,
) -> nn.Module:
    """Convolutions in a row, each with ReLU, then dense layers: a small network whose every part is an option.

    (B, *shape) -> scores (B, classes).

    widths sets the number of convolutions.  strides, padding and pools hold one number for all convolutions, or one for
    each of them.

    Args:
        widths: number of maps of each convolution, such as "8,16,16", each at least 1.
        kernel: side of every convolution's kernel in pixels, at least 1.
        strides: stride of the convolutions in pixels, each at least 1.
        padding: pixels of zeros added on every side before a convolution, each at least 0.
        pools: side of the max pooling after a convolution in pixels, each at least 1; 1 is no pooling.
        norm: normalisation between convolution and ReLU: "batch" over the batch, "layer" over each picture's layer,
            "none".
        head: what the dense layers read: "flatten" all values in a row, "average" the average of each map.
        dense: number of units of each hidden dense layer, such as "64", each at least 1; "" has none.
        dropout: share of the units left out before the scores in training, at least 0 and below 1.

    Refused: pictures on which a layer does not fit (the message names the least size that does), lists of another
    length than widths, fewer than one class, and options outside their ranges.

    >>> [p.numel() for p in plain_cnn().parameters()]
    [72, 8, 1152, 16, 2304, 16, 16384, 64, 640, 10]
    """
    maps = numbers("plain-cnn", "widths", widths)
    if not maps:
        raise Refused("plain-cnn(widths=''): it needs at least one convolution, such as widths='8,16'")
    positive("plain-cnn", kernel=kernel)
    share("plain-cnn", dropout=dropout)
    steps = _each("strides", strides, len(maps), 1)
    rims = _each("padding", padding, len(maps), 0)
    sizes = _each("pools", pools, len(maps), 1)
    spec = [((kernel, s, p), (k, k, 0)) for s, p, k in zip(steps, rims, sizes, strict=True)]
    sides = takes("plain-cnn", classes, shape, *[layer for pair in spec for layer in pair])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = shape[0]
    for i, (width, ((_, stride, rim), (pool, _, _))) in enumerate(zip(maps, spec, strict=True), 1):
        layers[f"conv{i}"] = conv(channels, width, kernel, stride, rim, norm)
        if pool > 1:
            layers[f"pool{i}"] = nn.MaxPool2d(pool)
        channels = width
    if head == "average":
        layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    before = channels * (1 if head == "average" else sides[0] * sides[1])
    for i, width in enumerate(numbers("plain-cnn", "dense", dense), 1):
        layers[f"dense{i}"] = nn.Linear(before, width)
        layers[f"relu{i}"] = nn.ReLU()
        before = width
    if dropout:
        layers["drop"] = nn.Dropout(dropout)
    layers["scores"] = nn.Linear(before, classes)
    return nn.Sequential(layers)


def _each(option: str, text: str, count: int, lowest: int) -> tuple[int, ...]:
    """One number for each of the convolutions."""
    values = numbers("plain-cnn", option, text, lowest)
    if len(values) not in (1, count):
        raise Refused(f"plain-cnn({option}={text!r}): give one number, or {count}, one for each of the widths")
    return values * count if len(values) == 1 else values
