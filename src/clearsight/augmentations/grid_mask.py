"""Chen, Liu, Zhao & Jia 2020, arXiv:2001.04086, section 3."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import between, chances, within
from clearsight.augmentations.common.geometry import mean_colour
from clearsight.core.catalogue import method
from clearsight.errors import Refused


@method(paper="arXiv:2001.04086")
def grid_mask(
    x: Tensor,
    y: Tensor,
    *,
    chance: float = 0.5,
    ratio: float = 0.6,
    least: float = 0.4,
    most: float = 1.0,
    value: Literal["black", "mean"] = "black",
) -> tuple[Tensor, Tensor]:
    """Erase squares on a regular grid from each picture, or none.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    In each period of the grid one square is erased, whose side is 1 - ratio of the period.  So 1 - (1 - ratio)^2 of the
    area is kept, 84 % with the paper's ratio of 0.6.  The place of the grid is uniform.

    Args:
        chance: probability that squares are erased, 0 to 1.
        ratio: share of the period's side that is kept, 0 to 1.
        least: least period, as a share of the picture's short side, 0.01 to 1; it is uniform in [least, most].
        most: largest period, as a share of the picture's short side, 0.01 to 1.
        value: what stands in the squares: "black" or "mean" (the picture's mean colour).

    Refused: options outside their ranges, and least above most.

    >>> x = torch.ones(1, 1, 4, 4)
    >>> float(grid_mask(x, torch.ones(1, 1), chance=1.0, ratio=0.5, least=1.0)[0].mean())
    0.75
    """
    within(0, 1, chance=chance, ratio=ratio)
    within(0.01, 1, least=least, most=most)
    if least > most:
        raise Refused(f"least={least:g}, most={most:g}: the period least must not be above the period most")
    out = []
    for picture, (often, long, down, right) in zip(x, chances(x, 4).tolist(), strict=True):
        if often >= chance:
            out.append(picture)
            continue
        period = max(round(between(least, most, long) * min(x.shape[2:])), 2)
        hole = round((1 - ratio) * period)
        rows, columns = (
            (torch.arange(side, device=x.device) + int(period * start)) % period < hole
            for side, start in zip(x.shape[2:], (down, right), strict=True)
        )
        ground = mean_colour(picture) if value == "mean" else picture.new_zeros(())
        out.append(torch.where(rows[:, None] & columns, ground, picture))
    return torch.stack(out), y
