"""Howard 2013, arXiv:1312.5402."""

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import between, chances, within
from clearsight.core.catalogue import method
from clearsight.core.torchvision_v2 import F


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
    """Change brightness, contrast, saturation and hue a little, in random order.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    The order and the strengths are drawn for each picture.  Contrast changes about the picture's mean grey.  Grey
    pictures (C = 1) have neither saturation nor hue, so these two do nothing to them.

    Args:
        brightness: the factor is uniform in [1 - brightness, 1 + brightness]; 0 to 1, where 0 leaves it out.
        contrast: the factor is uniform in [1 - contrast, 1 + contrast]; 0 to 1, where 0 leaves it out.
        saturation: the factor is uniform in [1 - saturation, 1 + saturation]; 0 to 1, where 0 leaves it out.
        hue: the shift is uniform in [-hue, hue], as a share of the colour circle; 0 to 0.5, where 0 leaves it out.

    Refused: options outside their ranges.

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
