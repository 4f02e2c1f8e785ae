"""Szegedy et al. 2014, arXiv:1409.4842, section 6."""

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import box, chances, within
from clearsight.core.catalogue import method
from clearsight.core.torchvision_v2 import F


@method(paper="arXiv:1409.4842", claims="moves resizes")
def crop(
    x: Tensor, y: Tensor, *, size: tuple[int, int], scale: float = 0.35, ratio: float = 3 / 4
) -> tuple[Tensor, Tensor]:
    """Cut out a random part of each picture and resize it to the network's input.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> (B, C, *size), and y as it was.  size: (height, width)
    of the network's input in pixels, given by whoever runs the augmentation.

    Resizing is bilinear and antialiased.  The paper's least share of the area, 0.08, is for a million pictures; with
    few training pictures the part should still show the object.

    Args:
        scale: least share of the picture's area; the share is uniform in [scale, 1].  From 0.001 to 1.
        ratio: the part's width / height is log-uniform in [ratio, 1 / ratio].  From 0.1 to 1.

    Refused: options outside their ranges.

    All of a square picture, its four pixels made one:

    >>> x = torch.tensor([[[[0.0, 0.25], [0.75, 1.0]]]])
    >>> crop(x, torch.ones(1, 1), size=(1, 1), scale=1.0, ratio=1.0)[0].item()
    0.5
    """
    within(0.001, 1, scale=scale)
    within(0.1, 1, ratio=ratio)
    parts = [
        F.resized_crop(picture, *box(chance, x.shape[2:], scale, 1.0, ratio), size=list(size), antialias=True)
        for picture, chance in zip(x, chances(x, 4), strict=True)
    ]
    return torch.stack(parts), y
