"""Removing pixels or characters: what stands in their place then.  Every caller names the fill.

A character that is removed leaves its place empty, as behind the end of a text, whatever the fill: there is no letter
between others, and no colour to be the mean of.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.core.model import Model
from clearsight.perturbation.inpainting import inpainted

Fill = Literal["mean", "black", "blur"]
Removal = Literal["mean", "black", "blur", "inpaint"]  # the last for places that are taken whole, not muted in part


def flat(model: Model, x: Tensor, value: float | None = None) -> Tensor:
    """A picture of one value, shaped like x (B, C, *S); None is the mean of the preprocessing, 0 for the network."""
    values = model.preprocess.mean if value is None else (value,) * x.shape[1]
    return x.new_tensor(values).view(1, -1, *[1] * (x.dim() - 2)).expand_as(x).clone()


def blurred(x: Tensor, sigma: float) -> Tensor:
    """x (B, C, *S) under a Gaussian of sigma pixels, along each axis in turn; borders are repeated."""
    radius = max(1, round(3 * sigma))
    t = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    for axis in range(2, x.dim()):
        line = x.movedim(axis, -1)
        shape = line.shape
        padded = F.pad(line.reshape(-1, 1, shape[-1]), (radius, radius), mode="replicate")
        x = F.conv1d(padded, kernel).view(shape).movedim(-1, axis)
    return x


def without(model: Model, x: Tensor, fill: Fill) -> Tensor:
    """The picture with everything taken away: its mean colour by the preprocessing, black, or a strong blur.

    x (B, C, *S) in [0, 1] -> the same shape.  The blur's sigma is a tenth of the longest side.  Texts: empty places.
    """
    if fill == "blur" and not model.preprocess.alphabet:
        return blurred(x, max(x.shape[2:]) / 10)
    return flat(model, x, 0.0 if fill == "black" else None)


def instead(model: Model, x: Tensor, fill: Removal) -> Tensor | None:
    """What ``taken`` puts in the place of pixels: pictures like x (B, C, *S), None where it is solved from others."""
    if fill == "inpaint":
        return without(model, x, "mean") if model.preprocess.alphabet else None
    return without(model, x, fill)


def taken(x: Tensor, gone: Tensor, nothing: Tensor | None, rows: Tensor) -> Tensor:
    """Versions (n, C, *S) of pictures x (B, C, *S) without the places of gone (n, *S) bool.

    nothing: as `instead` gives it.  rows (n,): of which picture each version is.
    """
    if nothing is None:
        return inpainted(x[rows], gone, rows=rows)
    return torch.where(gone[:, None], nothing[rows], x[rows])
