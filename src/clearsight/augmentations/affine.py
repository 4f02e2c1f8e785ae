"""Simard, Steinkraus & Platt 2003, doi:10.1109/ICDAR.2003.1227801, section 2."""

import torch
from torch import Tensor

from clearsight.augmentations._common import between, chances, moved, within
from clearsight.core.catalogue import method


@method(paper="doi:10.1109/ICDAR.2003.1227801")
def affine(
    x: Tensor,
    y: Tensor,
    *,
    rotation: float = 10.0,
    translation: float = 0.1,
    scale: float = 0.1,
    shear: float = 5.0,
) -> tuple[Tensor, Tensor]:
    """Each picture is turned, moved, scaled and sheared a little about its centre.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y stays.  Each is uniform between minus
    and plus what the option says, and 0 leaves it out: rotation in degrees, translation as a share of the width and of
    the height, shear in degrees along either axis; the logarithm of the factor of scale is uniform between those of
    1 / (1 + scale) and 1 + scale.  Bilinear; what comes in from outside is the picture's mean colour.

    >>> x = torch.tensor([[[[0.0, 0.5], [0.5, 1.0]]]])
    >>> affine(x, torch.ones(1, 1), rotation=0.0, translation=0.0, scale=0.0, shear=0.0)[0].tolist()
    [[[[0.0, 0.5], [0.5, 1.0]]]]
    """
    within(0, 180, rotation=rotation)
    within(0, 1, translation=translation)
    within(0, 10, scale=scale)
    within(0, 60, shear=shear)
    height, width = x.shape[2:]
    out = []
    for picture, row in zip(x, chances(x, 6).tolist(), strict=True):
        turn, right, down, zoom, along, across = (between(-1, 1, u) for u in row)
        out.append(
            moved(
                picture,
                angle=rotation * turn,
                right=translation * width * right,
                down=translation * height * down,
                scale=(1 + scale) ** zoom,
                shear=(shear * along, shear * across),
            )
        )
    return torch.stack(out), y
