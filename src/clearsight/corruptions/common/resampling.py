"""Pictures resampled: zoomed, at other places, and resized."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import Tensor

Floats = NDArray[np.float64]


def zoomed(x: Tensor, factor: float) -> Tensor:
    """Enlarge x (B, C, H, W) about its centre by a factor of at least 1, and crop it to its size; bilinear."""
    rows = x.new_tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]]).expand(len(x), -1, -1)
    grid = torch.nn.functional.affine_grid(rows, list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def sampled(x: Tensor, rows: Floats, columns: Floats) -> Tensor:
    """Sample one picture (C, H, W) at rows and columns (H, W); bilinear, beyond the border as in a mirror.

    >>> picture = torch.tensor([[[0.0, 1.0]]])
    >>> sampled(picture, np.array([[0.0, 0.0]]), np.array([[0.25, -1.0]])).tolist()
    [[[0.25, 1.0]]]
    """
    at = np.stack([rows, columns])
    read = [map_coordinates(channel, at, order=1, mode="mirror") for channel in x.double().numpy()]
    return torch.from_numpy(np.stack(read)).to(x)


def grid(x: Tensor) -> tuple[Floats, Floats]:
    """The row and the column of every pixel of pictures (..., H, W), each (H, W)."""
    rows, columns = np.indices(x.shape[-2:], dtype=np.float64)
    return rows, columns


def resized(x: Tensor, size: tuple[int, int], how: Image.Resampling) -> Tensor:
    """Resize one picture (C, H, W) to a size (height, width) with Pillow, without rounding to 8 bits."""
    each = [Image.fromarray(channel).resize(size[::-1], how) for channel in x.float().numpy()]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in each]))
