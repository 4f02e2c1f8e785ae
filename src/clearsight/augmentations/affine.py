"""Simard, Steinkraus & Platt 2003, doi:10.1109/ICDAR.2003.1227801, section 2."""

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import between, chances, within
from clearsight.augmentations.common.geometry import moved
from clearsight.core.catalogue import method


@method(paper="doi:10.1109/ICDAR.2003.1227801", claims="moves")
def affine(
    x: Tensor,
    y: Tensor,
    *,
    rotation: float = 10.0,
    translation: float = 0.1,
    scale: float = 0.1,
    shear: float = 5.0,
) -> tuple[Tensor, Tensor]:
    """Rotate, translate, scale and shear each picture a little about its centre.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    Each change is drawn for each picture, uniform between minus and plus its option; 0 leaves it out.  The factor of
    the scaling is log-uniform.  The result is resampled bilinearly; what comes in from outside the picture gets the
    picture's mean colour.

    Args:
        rotation: largest angle in degrees, 0 to 180.
        translation: largest shift, as a share of the width and of the height, 0 to 1.
        scale: the factor is log-uniform between 1 / (1 + scale) and 1 + scale; 0 to 10.
        shear: largest angle in degrees along either axis, 0 to 60.

    Refused: options outside their ranges.

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
