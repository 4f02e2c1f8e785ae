"""The mean colour of a picture, and affine moves."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.torchvision_v2 import F, InterpolationMode


def mean_colour(x: Tensor) -> Tensor:
    """(..., C, H, W) -> (..., C, 1, 1)."""
    return x.mean((-2, -1), keepdim=True)


def moved(
    x: Tensor,
    *,
    angle: float = 0.0,
    right: float = 0.0,
    down: float = 0.0,
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    corner: bool = False,
) -> Tensor:
    """One picture (C, H, W) turned (degrees, clockwise), moved (pixels), scaled and sheared (degrees) by itself.

    Bilinear; about its centre, or about its top left corner.  What lies outside of it is its mean colour, which is
    taken off before and added afterwards: torchvision's ``fill`` is weighed in twice where bilinear pixels straddle it.
    """
    ground = mean_colour(x)
    out: Tensor = F.affine(
        x - ground,
        angle=angle,
        translate=[right, down],
        scale=scale,
        shear=list(shear),
        interpolation=InterpolationMode.BILINEAR,
        center=[0.0, 0.0] if corner else None,
    )
    return out + ground
