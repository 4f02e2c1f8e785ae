"""What several networks share: the arithmetic of shapes, their refusals, a convolution with what follows it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from clearsight.errors import Refused

Layer = tuple[int, int, int]  # kernel, stride and padding
Norm = Literal["none", "batch", "layer"]


def side(n: int, *layers: Layer) -> int:
    """How long a side of n pixels is after the layers: floor((N - F + 2P) / S) + 1 for each; 0 where one does not fit.

    >>> side(227, (11, 4, 0)), side(7, (3, 2, 0)), side(2, (3, 1, 0))
    (55, 3, 0)
    """
    for kernel, stride, padding in layers:
        n = max((n - kernel + 2 * padding) // stride + 1, 0)
    return n


def least(*layers: Layer) -> int:
    """The shortest side on which every layer fits, and every stride has two places to choose from.

    >>> least((3, 1, 0)), least((3, 2, 1)), least((2, 2, 0), (2, 2, 0))
    (3, 2, 4)
    """
    n = 1
    for kernel, stride, padding in reversed(layers):
        n = max((n - 1) * stride + kernel - 2 * padding, min(stride, 2))
    return n


def takes(name: str, classes: int, shape: tuple[int, ...], *layers: Layer, axes: int | None = 2) -> tuple[int, ...]:
    """The sides of the maps that the layers make of an input (C, *S).

    axes: how many S must have; None is any.  Refused: fewer than one class, other axes, and sides that are too short.
    """
    if classes < 1:
        raise Refused(f"{name} with {classes} classes: it needs at least 1")
    if axes is not None and len(shape) != axes + 1:
        kinds = {1: "sequences (channels, length)", 2: "pictures (channels, height, width)"}
        raise Refused(f"{name} takes {kinds[axes]}, not an input of shape {shape}")
    if len(shape) < 2 or min(shape) < 1:
        raise Refused(f"{name} takes inputs (channels, sides ...) of at least 1 each, not one of shape {shape}")
    if min(shape[1:]) < (n := least(*layers)):
        wanted, given = " x ".join([str(n)] * len(shape[1:])), " x ".join(map(str, shape[1:]))
        raise Refused(f"{name} needs inputs of at least {wanted}, not {given}: use larger inputs, or another network")
    return tuple(side(s, *layers) for s in shape[1:])


def positive(name: str, **options: int) -> None:
    """Refuse an option below 1."""
    for option, value in options.items():
        if value < 1:
            raise Refused(f"{name}({option}={value}): it must be at least 1")


def share(name: str, **options: float) -> None:
    """Refuse a dropout that is not from 0 to below 1."""
    for option, value in options.items():
        if not 0 <= value < 1:
            raise Refused(f"{name}({option}={value:g}): it must be at least 0 and below 1")


def numbers(name: str, option: str, text: str, lowest: int = 1) -> tuple[int, ...]:
    """The whole numbers of a text such as "64,128"; none of an empty one.

    >>> numbers("mlp", "hidden", "64, 128")
    (64, 128)
    """
    try:
        values = tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise Refused(f"{name}({option}={text!r}): give whole numbers such as '64,128'") from None
    if any(n < lowest for n in values):
        raise Refused(f"{name}({option}={text!r}): each must be at least {lowest}")
    return values


def count(net: nn.Module) -> int:
    """How many numbers training may change.

    >>> count(nn.Linear(784, 10))
    7850
    """
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def conv(
    channels: int, maps: int, kernel: int, stride: int = 1, padding: int = 0, norm: Norm = "none", *, bias: bool = True
) -> nn.Sequential:
    """A convolution, its normalisation and a ReLU, by the names conv, norm and relu."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(channels, maps, kernel, stride, padding, bias=bias)
    if norm != "none":
        parts["norm"] = nn.BatchNorm2d(maps) if norm == "batch" else nn.GroupNorm(1, maps)
    parts["relu"] = nn.ReLU()
    return nn.Sequential(parts)


def he(net: nn.Module) -> nn.Module:
    """The network, its weights drawn anew as He, Zhang, Ren & Sun 2015 (arXiv:1502.01852, equation 10), biases 0."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return net


def dense_head(features: int, width: int, classes: int, dropout: float) -> nn.Sequential:
    """Two dense layers of width units, each with ReLU and dropout, and one that gives the scores."""
    return nn.Sequential(
        OrderedDict(
            fc6=nn.Linear(features, width), relu6=nn.ReLU(), drop6=nn.Dropout(dropout),
            fc7=nn.Linear(width, width), relu7=nn.ReLU(), drop7=nn.Dropout(dropout),
            fc8=nn.Linear(width, classes),
        )
    )  # fmt: skip
