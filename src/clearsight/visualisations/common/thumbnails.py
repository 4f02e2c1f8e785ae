"""Small pictures out of pixels and maps, and the captions of their scales."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from clearsight.drawing.heatmaps import enlarged, overlay, photo
from clearsight.internals.layers import enlarge

SMALL = 144  # pixels of the short side of a small picture
MAP_SCALE = "Each map has its own scale: full ink is the 99.5th percentile of its absolute values."
ROW_SCALE = "The maps of a row share a scale, so that they compare: full ink is the 99.5th percentile of all of them."


def small(image: Image.Image, side: int = SMALL) -> Image.Image:
    """The picture with a short side of about so many pixels: enlarged by squares, or made smaller."""
    image = enlarged(image, side)
    scale = side / min(image.size)
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def over(x: Tensor, heat: Tensor, full: float | None = None) -> Image.Image:
    """A layer's map (h, w) as ink on its picture (C, H, W), small; purple where it is negative; full: see overlay."""
    heat = enlarge(heat[None].float().cpu(), x.shape[1:])[0]
    return small(overlay(x.cpu(), heat, signed=bool((heat < 0).any()), full=full))


def lit(preactivation: Tensor, size: torch.Size, share: float = 0.5) -> Tensor:
    """bool (H, W): where a unit's map (h, w) is above a share of the way from its mean to its peak in this picture."""
    heat = enlarge(preactivation[None].float().cpu(), size)[0]
    low, high = float(heat.mean()), float(heat.max())
    return heat > low + share * (high - low) if high > low else torch.zeros(size, dtype=torch.bool)


def cut(x: Tensor, field: tuple[int, int, int, int], region: Tensor | None = None) -> Image.Image:
    """A box (left, top, right, bottom) cut out of a picture (C, H, W), with a region (H, W) outlined."""
    left, top, right, bottom = field
    inner = None if region is None else region[top:bottom, left:right]
    return small(photo(x[:, top:bottom, left:right].cpu(), inner))
