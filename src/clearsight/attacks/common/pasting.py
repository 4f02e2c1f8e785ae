"""Paste a patch into pictures, with a given size, place and rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from clearsight.errors import Refused

Shape = Literal["disc", "square"]


@dataclass(frozen=True)
class Cut:
    """A patch's outline.  half: the radius of a disc, or half the side of a square, in pixels, at full scale."""

    shape: Shape
    half: float

    @property
    def pixels(self) -> int:
        """The side of the tensor that holds the patch, in pixels of the picture."""
        return max(1, math.ceil(2 * self.half))


def cut(share: float, shape: Shape, size: tuple[int, ...]) -> Cut:
    """The outline that covers a share of a picture of size (H, W); refused where it does not fit into the picture.

    >>> cut(0.25, "square", (40, 40)).half
    10.0
    """
    area = share * size[0] * size[1]
    half = math.sqrt(area / math.pi) if shape == "disc" else math.sqrt(area) / 2
    if not 0 < share <= 1 or 2 * half > min(size) + 1e-6:
        full = math.pi / 4 if shape == "disc" else 1.0
        most = full * min(size) / max(size)
        raise Refused(
            f"patch(share={share:g}): share must be above 0 and at most {most:.3g} for a {shape} on pictures of this "
            "size"
        )
    return Cut(shape, half)


def pasted(x: Tensor, patch: Tensor, of: Cut, chance: Tensor, *, rotation: float, scale: float) -> Tensor:
    """Paste the patch (C, p, p) into each picture x (n, C, H, W); all other pixels stay exactly as they were.

    chance (n, 4), in [0, 1), gives for each picture the rotation, up to ``rotation`` degrees either way; the reduction,
    up to the share ``scale`` of the side; and the vertical and the horizontal place inside the picture.
    """
    turn = (2 * chance[:, 0] - 1) * math.radians(rotation)
    half = of.half * (1 - scale * chance[:, 1])
    cos, sin = turn.cos(), turn.sin()
    reach = half if of.shape == "disc" else half * (cos.abs() + sin.abs())
    away = []
    for side, drawn in ((x.shape[2], chance[:, 2]), (x.shape[3], chance[:, 3])):
        room = (side - 2 * reach).clamp_min(0)
        middle = side / 2 - room / 2 + room * drawn
        away.append(torch.arange(side, device=x.device, dtype=x.dtype) + 0.5 - middle[:, None])
    down, right = away[0][:, :, None], away[1][:, None, :]
    cos, sin, half = (v[:, None, None] for v in (cos, sin, half))
    u, v = (right * cos + down * sin) / half, (down * cos - right * sin) / half
    inside = u * u + v * v <= 1 if of.shape == "disc" else (u.abs() <= 1) & (v.abs() <= 1)
    shown = grid_sample(
        patch.expand(len(x), *patch.shape), torch.stack([u, v], 3), padding_mode="border", align_corners=False
    )
    return torch.where(inside[:, None], shown, x)
