"""What several corruptions share: the constants of a severity, padding, filters, and resampling."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from clearsight.errors import Refused

T = TypeVar("T")
Floats = NDArray[np.float64]
SMALL, LARGE = 32, 224  # the shorter sides, in pixels, for which the two published sets of constants are meant
BETWEEN = math.sqrt(SMALL * LARGE)  # 84.7: a shorter side below it is nearer to SMALL, by ratio
SEVERITIES = (1, 2, 3, 4, 5)


def graded(severity: int, five: Sequence[T]) -> T:
    """Choose the constants of one severity out of five; a severity that does not exist is refused.

    >>> graded(5, [10, 20, 30, 40, 50])
    50
    """
    if severity not in SEVERITIES:
        raise Refused(f"severity={severity}: a whole number from 1 (mild) to 5 (severe)")
    return five[severity - 1]


def constants(x: Tensor, severity: int, small: Sequence[T], large: Sequence[T]) -> tuple[T, float]:
    """The constants of one severity for pictures x (B, C, H, W), and the factor by which their lengths grow.

    small: those of CIFAR-10-C, for pictures whose shorter side is below 84 pixels; large: those of ImageNet-C, for all
    others.  Lengths are in pixels for a shorter side of 32 or 224, and the factor is the shorter side divided by that.
    For small pictures the factor is at least 1, because their lengths are hardly a pixel.

    >>> constants(torch.zeros(1, 3, 64, 80), 1, [3.0] * 5, [9.0] * 5)
    (3.0, 2.0)
    """
    side = min(x.shape[2:])
    if side < BETWEEN:
        return graded(severity, small), max(1.0, side / SMALL)
    return graded(severity, large), side / LARGE


def surrounded(x: Tensor, n: int, *, mirror: bool = True) -> Tensor:
    """Pad x (..., H, W) by n pixels on each side: mirrored at the border pixels, or with these repeated.

    >>> surrounded(torch.tensor([[[1.0, 2.0, 3.0]]]), 2)[0, 0].tolist()
    [3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """
    mode = "reflect" if mirror else "edge"
    rows, columns = (torch.from_numpy(np.pad(np.arange(side), n, mode=mode)) for side in x.shape[-2:])  # type: ignore[call-overload]
    return x[..., rows[:, None], columns]


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Filter every channel of x (B, C, H, W) with one kernel (k, k), k odd; the border is mirrored."""
    wide = surrounded(x, kernel.shape[0] // 2).flatten(0, 1)[:, None]
    return torch.nn.functional.conv2d(wide, kernel.to(x)[None, None]).view_as(x)


def bell(n: int, sigma: float) -> Tensor:
    """A Gaussian at the integers from -n to n, which sums to 1: (2n + 1,)."""
    at = torch.arange(-n, n + 1, dtype=torch.float64)
    weight = torch.exp(-at.square() / (2 * sigma * sigma)) if sigma else (at == 0).double()
    return weight / weight.sum()


def smoothed(x: Tensor, sigma: float, *, truncate: float = 4.0) -> Tensor:
    """Filter x (B, C, H, W) with a Gaussian of sigma pixels, cut off at ``truncate`` sigmas; the border is repeated."""
    n = int(truncate * sigma + 0.5)
    if not n:
        return x
    line = bell(n, sigma).to(x)
    wide = surrounded(x, n, mirror=False).flatten(0, 1)[:, None]
    down = torch.nn.functional.conv2d(wide, line[None, None, :, None])
    return torch.nn.functional.conv2d(down, line[None, None, None]).view_as(x)


def trail(radius: float, sigma: float) -> Tensor:
    """The weights of the trail at 0, 1, 2, ... pixels behind a point: half a Gaussian, which sums to 1.

    >>> trail(1, 1e9).tolist() == [1 / 3] * 3
    True
    """
    behind = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64)
    weight = torch.exp(-behind.square() / (2 * sigma * sigma))
    return weight / weight.sum()


def dragged(x: Tensor, weight: Tensor, angle: Tensor) -> Tensor:
    """Blur x (B, C, H, W) along each picture's angle (B,), as if it moved while exposed: weight (n,) behind each pixel.

    angle: in degrees, 0 to the right and 90 down.  The nearest pixels on that line are taken; the border is repeated.
    """
    high, wide = x.shape[2:]
    reach = len(weight) - 1
    around = surrounded(x, reach, mirror=False)
    out = torch.zeros_like(x)
    for i, degrees in enumerate(angle.tolist()):
        along, down = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        for k, w in enumerate(weight.tolist()):
            top, left = reach - round(k * down), reach - round(k * along)
            out[i] += w * around[i, :, top : top + high, left : left + wide]
    return out


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


def through_jpeg(x: Tensor, quality: int) -> Tensor:
    """Save one picture (C, H, W) in [0, 1] as a JPEG with Pillow, and read it again."""
    file = io.BytesIO()
    F.to_pil_image((x * 255).round().to(torch.uint8)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        read: Tensor = F.pil_to_tensor(image)
    return read.to(x) / 255


def plasma(chance: Tensor, decay: float) -> Tensor:
    """Clouds by diamond-square (Fournier, Fussell & Carpenter 1982, doi:10.1145/358523.358553), on a torus.

    chance (B, n, n), n a power of 2: a number in [0, 1) for each point -> (B, n, n) from 0 to 1 in each picture.  Each
    grid is twice as fine as the one before, and the heights that it adds are smaller by the square of ``decay``.  It is
    the square because the published program multiplies by its amplitude twice.
    """
    n = chance.shape[1]
    high = torch.zeros_like(chance)
    step, size = n, 1.0
    while step >= 2:
        half = step // 2
        corner = high[:, ::step, ::step]
        square = corner + corner.roll(-1, 1)
        high[:, half::step, half::step] = (square + square.roll(-1, 2)) / 4
        high[:, half::step, half::step] += size * (2 * chance[:, half::step, half::step] - 1)
        middle = high[:, half::step, half::step]
        for top, left, along, across in ((0, half, 1, 2), (half, 0, 2, 1)):
            ends = middle + middle.roll(1, along) + corner + corner.roll(-1, across)
            high[:, top::step, left::step] = ends / 4 + size * (2 * chance[:, top::step, left::step] - 1)
        step, size = half, size / decay**2
    low, top_ = high.amin((1, 2), keepdim=True), high.amax((1, 2), keepdim=True)
    return (high - low) / (top_ - low).clamp_min(torch.finfo(high.dtype).tiny)


def power_of_two(n: int) -> int:
    """The smallest power of 2 that is at least n, and at least 2.

    >>> [power_of_two(n) for n in (1, 32, 33, 224)]
    [2, 32, 64, 256]
    """
    return max(2, 1 << (n - 1).bit_length())
