"""Howard 2013, arXiv:1312.5402."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from clearsight.augmentations._common import between, chances, within
from clearsight.core.catalogue import method


@method(paper="arXiv:1312.5402")
def colour_jitter(
    x: Tensor,
    y: Tensor,
    *,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.02,
) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation and hue are changed a little, in any order.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y stays.  The order is drawn for each
    picture.  The factors of brightness, contrast and saturation are uniform in [1 - option, 1 + option]; the hue moves
    by a share of the circle, uniform in [-hue, hue].  0 leaves one out.  Contrast changes about the picture's mean
    grey.  Grey pictures (C = 1) have neither saturation nor hue.

    A picture of one grey has no contrast, no saturation and no hue:

    >>> x = torch.full((1, 3, 2, 2), 0.5)
    >>> bool((colour_jitter(x, torch.ones(1, 1), brightness=0.0)[0] - x).abs().max() < 1e-4)
    True
    """
    within(0, 1, brightness=brightness, contrast=contrast, saturation=saturation)
    within(0, 0.5, hue=hue)
    wanted = [
        (F.adjust_brightness, 1.0, brightness),
        (F.adjust_contrast, 1.0, contrast),
        (F.adjust_saturation, 1.0, saturation),
        (F.adjust_hue, 0.0, hue),
    ]
    out = []
    for picture, chance in zip(x, chances(x, 8), strict=True):
        for k in chance[4:].argsort().tolist():
            change, neutral, reach = wanted[k]
            if reach:
                picture = change(picture, between(neutral - reach, neutral + reach, float(chance[k])))
        out.append(picture)
    return torch.stack(out), y
