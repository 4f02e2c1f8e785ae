"""What several attacks do in the same way."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.norms import Norm, clip, like, size


def steepest(g: Tensor, norm: Norm) -> Tensor:
    """The direction of size 1 in which a gradient (B, ...) rises most; nothing where it is nothing.

    >>> steepest(torch.tensor([[3.0, -4.0]]), "linf"), steepest(torch.tensor([[3.0, -4.0]]), "l2")
    (tensor([[ 1., -1.]]), tensor([[ 0.6000, -0.8000]]))
    """
    if norm == "linf":
        return g.sign()
    top = like(g.flatten(1).abs().amax(1), g)  # its squares may be too small to hold
    g = torch.where(top > 0, g / top.clamp_min(torch.finfo(g.dtype).tiny), 0.0)
    return g / like(size(g, norm).clamp_min(0.5), g)


def within(x: Tensor, eps: float, norm: Norm, rows: Tensor | None = None) -> Tensor:
    """A random point within eps of each picture (n, ...), and in [0, 1]; rows (n,): whose draws these are.

    linf: even over the cube's part in [0, 1]; l2: even over the ball, then clipped to [0, 1].
    """
    if norm == "linf":
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        return low + (high - low) * rng.uniform(x, rows)
    way = steepest(rng.normal(x, rows), norm)
    radius = rng.uniform(x.flatten(1)[:, :1], rows).pow(1 / x[0].numel())
    return clip(x + eps * like(radius, x) * way, x, eps, norm)
