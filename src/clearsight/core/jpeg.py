"""One picture saved as a JPEG and read again."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from clearsight.core.torchvision_v2 import F


def through_jpeg(x: Tensor, quality: int) -> Tensor:
    """Save one picture (C, H, W) in [0, 1] as a JPEG with Pillow, and read it again."""
    file = io.BytesIO()
    F.to_pil_image((x * 255).round().to(torch.uint8)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        read: Tensor = F.pil_to_tensor(image)
    return read.to(x) / 255
