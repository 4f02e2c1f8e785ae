"""Upsampling that is learned, and begins as bilinear interpolation (Long, Shelhamer & Darrell 2015, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.errors import Refused


def bilinear_kernel(factor: int) -> Tensor:
    """The kernel (2 factor, 2 factor) of a transposed convolution at stride factor that interpolates bilinearly.

    Along each axis the weight of a place falls from its centre to zero at the centres of its neighbours, which lie
    factor pixels away.  factor must be even, so that the kernel has its middle between two pixels.

    >>> bilinear_kernel(2)[0].mul(16).tolist()
    [1.0, 3.0, 3.0, 1.0]
    """
    if factor < 2 or factor % 2:
        raise Refused(f"upsampling by {factor}: the factor must be even, 2 or more")
    places = torch.arange(2 * factor) + 0.5 - factor
    line = 1 - places.abs() / factor
    return line[:, None] * line[None, :]


def upsampling(channels: int, factor: int, *, mixed: bool) -> nn.ConvTranspose2d:
    """A transposed convolution: maps (B, channels, h, w) -> (B, channels, factor h, factor w).

    It begins as `interpolate(mode="bilinear", align_corners=False)`, but for the outermost factor / 2 pixels, where it
    takes zeros for what lies outside and interpolation repeats the border.

    mixed: whether a channel may learn to read the others; it begins with itself alone.
    """
    groups = 1 if mixed else channels
    up = nn.ConvTranspose2d(channels, channels, 2 * factor, factor, factor // 2, groups=groups, bias=False)
    with torch.no_grad():
        up.weight.zero_()
        own = torch.arange(channels)
        up.weight[own, own if mixed else 0] = bilinear_kernel(factor).to(up.weight)
    return up
