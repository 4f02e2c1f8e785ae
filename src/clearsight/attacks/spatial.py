"""Engstrom, Tran, Tsipras, Schmidt & Madry 2019, arXiv:1712.02779, section 3."""

import math
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.norms import project
from clearsight.core.targets import Goal
from clearsight.errors import Refused


@method(paper="arXiv:1712.02779", claims="linf unbounded stochastic pictures-only")
def spatial(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    rotation: float = 30.0,
    translation: float = 0.1,
    search: Literal["random", "grid"] = "random",
    tries: int = 10,
    angles: int = 31,
    shifts: int = 5,
) -> Tensor:
    """The worst of several rotations and translations of the whole picture.

    x (B, C, *S) with *S = (H, W), in [0, 1] -> the same shape.  Pixels are interpolated bilinearly, and what comes in
    from outside is black.  A picture that meets the goal is left alone.

    The attack keeps no budget in pixels.  An eps below 1 limits the change of every pixel all the same, and whether the
    goal is met is asked of the picture so limited.

    Args:
        rotation: maximum rotation about the centre in degrees, to either side, from 0 to 180.
        translation: maximum shift after the rotation, as a share of the height and of the width, from 0 to 1.
        search: random takes the worst of random combinations; grid takes the worst of all combinations of evenly spaced
            angles and shifts, and tries the smallest first.
        tries: number of combinations of the random search, from 1.
        angles: number of angles of the grid, from 1; 31 as published.
        shifts: number of shifts of the grid along either axis, from 1; 5 as published, which with 31 angles costs 775
            passes.

    Refused: inputs that are not pictures (B, C, H, W).

    Source: Engstrom et al. 2019, section 3.

    A light on the left, moved by half of the width:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[1.0, 0.0]]]]), Misclassify(torch.tensor([0]))
    >>> options = {"translation": 0.5, "search": "grid", "angles": 1, "shifts": 3}
    >>> spatial(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=1.0, **options).tolist()
    [[[[0.0, 1.0]]]]
    """
    if x.dim() != 4:
        raise Refused("spatial rotates and shifts pictures (B, C, H, W): it does not take sequences or clips")
    if not (0 <= rotation <= 180 and 0 <= translation <= 1):
        raise Refused(
            f"spatial(rotation={rotation:g}, translation={translation:g}): rotation must be from 0 to 180 degrees, "
            "translation from 0 to 1"
        )
    if min(tries, angles, shifts) < 1:
        raise Refused(
            f"spatial(tries={tries}, angles={angles}, shifts={shifts}): tries, angles and shifts must be at least 1"
        )
    best = BestSoFar(x)
    lattice = even(angles, shifts) if search == "grid" else [None] * tries
    for point in lattice:
        rows = (~best.met).nonzero()[:, 0]
        if not len(rows):
            break
        like = x.new_empty(len(rows), 3)
        share = 2 * rng.uniform(like, rows) - 1 if point is None else like.new_tensor(point).expand_as(like)
        x_adv = project(moved(x[rows], rotation * share[:, 0], translation * share[:, 1:]), x[rows], eps, "linf")
        with torch.no_grad():
            out = model(x_adv)
        goals = goal[rows.cpu()]
        best.see(rows, x_adv, goals.loss(out), goals.met(out))
    return best.x


def even(angles: int, shifts: int) -> list[tuple[float, ...]]:
    """All (angle, right, down) in [-1, 1], evenly spaced, the smallest first; a count of one gives 0.

    >>> even(1, 3)[:2], len(even(31, 5))
    ([(0.0, 0.0, 0.0), (0.0, -1.0, 0.0)], 775)
    """
    turns, steps = ([2 * k / (n - 1) - 1 for k in range(n)] if n > 1 else [0.0] for n in (angles, shifts))
    return sorted(product(turns, steps, steps), key=lambda p: (round(sum(map(abs, p)), 9), -abs(p[1]), p))


def moved(x: Tensor, degrees: Tensor, share: Tensor) -> Tensor:
    """Turn pictures (B, C, H, W) clockwise about their centres by degrees (B,), then move them to the right and down.

    share (B, 2): shift as a share of the width and of the height.  Interpolation is bilinear; black comes in.
    """
    long = x.shape[3] / x.shape[2]
    cos, sin = torch.cos(degrees * math.pi / 180), torch.sin(degrees * math.pi / 180)
    back = torch.stack([cos, sin / long, -sin * long, cos], 1).view(-1, 2, 2)  # in units of half the width and height
    origin = -(back @ (2 * share)[:, :, None])
    grid = torch.nn.functional.affine_grid(torch.cat([back, origin], 2), list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
