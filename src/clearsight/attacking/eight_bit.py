"""Attacked pictures as files hold them: 8 bits for each value, still inside the budget, and read back from the file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clearsight.core.norms import Norm, perturbation_norm


def rounded(z: Tensor, clean: Tensor, eps: float, norm: Norm) -> Tensor:
    """z (B, ...) on the grid of 1/255, no further than eps from clean where the grid allows it.

    Each value goes to the nearest step; of Linf to the nearest within eps, of L2, where the whole is too far, towards
    the clean picture.

    >>> rounded(torch.tensor([[0.5]]), torch.tensor([[0.496]]), 0.004, "linf") * 255
    tensor([[127.]])
    """
    steps = z * 255
    near = steps.round()
    if norm == "linf":
        low, high = ((clean - eps) * 255 - 1e-4).ceil(), ((clean + eps) * 255 + 1e-4).floor()
        near = torch.where(low <= high, torch.maximum(torch.minimum(near, high), low), near)
    else:
        towards = torch.where(clean * 255 >= steps, steps.ceil(), steps.floor())
        far = perturbation_norm(near / 255 - clean, norm) > eps
        near = torch.where(far.view(-1, *[1] * (z.dim() - 1)), towards, near)
    return (near / 255).clamp(0, 1)


def as_png(x: Tensor) -> bytes:
    """One picture (C, H, W) of such values as a PNG of just these, never enlarged."""
    a = (x * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a).save(buffer, "PNG")
    return buffer.getvalue()


def from_png(path: Path) -> Tensor:
    """The values of a PNG as they stand in it: (C, H, W) in [0, 1]."""
    with Image.open(path) as image:
        a = np.asarray(image).copy()
    found = torch.from_numpy(a).float() / 255
    return found[None] if found.dim() == 2 else found.movedim(-1, 0)
