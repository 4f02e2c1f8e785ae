"""The first part of an exported program: the bytes of decoded pictures become pixels as `data.images` makes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.preprocess import Preprocess
from clearsight.exporting.onnx_pixels import pillow_weighs

Size = int | torch.SymInt  # which it is while a program is taken


class Pixels(nn.Module):
    """`picture` (N, H, W, C) uint8 of any size -> pixels (N, C, h, w) float32 in [0, 1], as Pillow's up to 1 of 255."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.height, self.width = preprocess.size
        self.resize, self.interpolation = preprocess.resize, preprocess.interpolation
        self.weighs = pillow_weighs()

    def forward(self, picture: Tensor) -> Tensor:
        planes = picture.permute(0, 3, 1, 2)
        high, wide = picture.shape[1], picture.shape[2]
        whole = self._whole(high, wide)
        if self.interpolation == "nearest":
            resized = planes[:, :, _places(high, whole[0])][:, :, :, _places(wide, whole[1])]
        else:
            resized = planes
            for size in (self._between(high, wide, *whole), whole):
                resized = F.interpolate(resized, size, mode=self.interpolation, antialias=True)  # type: ignore[arg-type]
        if self.resize is not None:
            top, left = _half(whole[0] - self.height), _half(whole[1] - self.width)
            rows, columns = torch.arange(self.height) + top, torch.arange(self.width) + left
            resized = resized[:, :, rows][:, :, :, columns]  # a slice would refuse pictures of which nothing is cut off
        return resized.to(torch.float32) / 255

    def _whole(self, high: Size, wide: Size) -> tuple[Size, Size]:
        if self.resize is None:
            return self.height, self.width
        short = torch.sym_min(high, wide)
        return self.resize * high // short, self.resize * wide // short

    def _between(self, high: Size, wide: Size, new_high: Size, new_wide: Size) -> tuple[Size, Size]:
        """The size between the two passes: see `onnx_pixels`."""
        lost_rows, lost_columns = high - new_high, wide - new_wide
        if self.weighs:
            first = _above_zero(lost_rows - torch.sym_max(2 * lost_columns, 0))
        else:
            first = _above_zero(lost_rows) * _above_zero(high - 100 * wide)
        return first * new_high + (1 - first) * high, first * wide + (1 - first) * new_wide


def _above_zero(n: Size) -> Size:
    """1 or 0; a program has no ifs on sizes."""
    return torch.sym_min(torch.sym_max(n, 0), 1)


def _places(side: Size, count: Size) -> Tensor:
    """The nearest places of a side, by repeated addition in float64."""
    step = side / count
    start = torch.full((1,), 0.5 * step, dtype=torch.float64)
    steps = torch.full((count - 1,), step, dtype=torch.float64)
    return torch.cumsum(torch.cat([start, steps]), 0).long().clamp(max=side - 1)


def _half(margin: Size) -> Size:
    """Half of a margin, rounded to the even number."""
    return margin // 2 + margin % 2 * (margin // 2 % 2)
