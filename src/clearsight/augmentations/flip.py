"""Krizhevsky, Sutskever & Hinton 2012, doi:10.1145/3065386, section 4.1."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import chances, within
from clearsight.core.catalogue import method
from clearsight.core.torchvision_v2 import F


@method(paper="doi:10.1145/3065386", claims="moves")
def flip(
    x: Tensor, y: Tensor, *, direction: Literal["horizontal", "vertical"] = "horizontal", chance: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Mirror each picture, or leave it as it is.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    Do not use it for classes that differ by their side, such as letters, or the left and the right lung.

    Args:
        direction: "horizontal" swaps left and right, "vertical" swaps top and bottom.
        chance: probability that a picture is mirrored, 0 to 1.

    Refused: options outside their ranges.

    >>> flip(torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.ones(1, 1), chance=1.0)[0].tolist()
    [[[[1.0, 0.5, 0.0]]]]
    """
    within(0, 1, chance=chance)
    mirrored = F.horizontal_flip(x) if direction == "horizontal" else F.vertical_flip(x)
    chosen = (chances(x, 1) < chance).to(x.device)
    return torch.where(chosen[:, :, None, None], mirrored, x), y
