"""Adversarial pictures as 8-bit files: rounding inside the budget, writing PNG, and reading it back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clearsight.core.norms import Measure, perturbation_norm


def rounded(z: Tensor, clean: Tensor, eps: float, norm: Measure) -> Tensor:
    """Round z (B, ...) to multiples of 1/255, no further than eps from clean where such multiples exist.

    Each value goes to the nearest multiple: in Linf to the nearest within eps; in L2, if the picture is then too far
    from the clean one, towards the clean value.

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
    """Encode one rounded picture (C, H, W) as a PNG of exactly these values, never enlarged."""
    a = (x * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a).save(buffer, "PNG")
    return buffer.getvalue()


def from_png(path: Path) -> Tensor:
    """Read the values of a PNG as the file holds them: (C, H, W) in [0, 1]."""
    with Image.open(path) as image:
        a = np.asarray(image).copy()
    pixels = torch.from_numpy(a).float() / 255
    return pixels[None] if pixels.dim() == 2 else pixels.movedim(-1, 0)
