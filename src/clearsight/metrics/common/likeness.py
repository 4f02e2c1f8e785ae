"""The likeness of maps to other maps of the same pictures, for two metrics that share its options."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.places import cropped
from clearsight.core.similarity import constant, spearman, ssim

Likeness = Literal["spearman", "ssim"]


def likeness(maps: Tensor, others: Tensor, by: Likeness, magnitude: bool, inside: Tensor | None = None) -> Tensor:
    """Spearman's rank correlation, -1 to 1, or SSIM of maps (B, *S) and others (B, *S): (B,).

    For SSIM each map is divided by its largest magnitude.  magnitude: compare |map| instead of the map.  The likeness
    is nan where the map is constant, and 0 where only the other one is.  inside: bool (B, *S), the places that
    count; None for all.
    """
    values = []
    pairs = zip(*(cropped(m.double().cpu(), inside) for m in (maps, others)), strict=True)
    for a, b in ((one.numpy(), other.numpy()) for one, other in pairs):
        a, b = (abs(a), abs(b)) if magnitude else (a, b)
        if constant(a):
            values.append(float("nan"))
        elif constant(b):
            values.append(0.0)
        else:
            values.append(spearman(a, b) if by == "spearman" else ssim(a / abs(a).max(), b / abs(b).max()))
    return torch.tensor(values, device=maps.device)
