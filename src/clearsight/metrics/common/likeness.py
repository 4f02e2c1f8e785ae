"""The likeness of maps to other maps of the same pictures, for two metrics that share its options."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.similarity import constant, spearman, ssim

Likeness = Literal["spearman", "ssim"]


def likeness(maps: Tensor, others: Tensor, by: Likeness, magnitude: bool) -> Tensor:
    """Spearman's rank correlation, -1 to 1, or SSIM of maps (B, *S) and others (B, *S): (B,).

    For SSIM each map is divided by its largest magnitude.  magnitude: compare |map| instead of the map.  The likeness
    is nan where the map is constant, and 0 where only the other one is.
    """
    values = []
    for a, b in zip(maps.double().cpu().numpy(), others.double().cpu().numpy(), strict=True):
        a, b = (abs(a), abs(b)) if magnitude else (a, b)
        if constant(a):
            values.append(float("nan"))
        elif constant(b):
            values.append(0.0)
        else:
            values.append(spearman(a, b) if by == "spearman" else ssim(a / abs(a).max(), b / abs(b).max()))
    return torch.tensor(values, device=maps.device)
