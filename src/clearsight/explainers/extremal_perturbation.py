"""Fong, Patrick & Vedaldi 2019, arXiv:1910.08485, sections 3.1 to 3.3, with another optimiser than the paper's."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight import receipts
from clearsight.batching import pairs
from clearsight.classifier import Classifier
from clearsight.errors import Refused
from clearsight.fill import blurred
from clearsight.layers import enlarge, gradients
from clearsight.methods import method
from clearsight.targets import Target

SPREAD = 21 / 224  # of a place of the mask, and
BLUR = 20 / 224  # of the strongest blur, both in parts of the longest side
LEVELS = 8  # of blur
REACH = 2.0  # spreads, beyond which a place is not felt
SHARPNESS = 20.0  # of the smooth maximum
TIE = 1e-4  # values of the mask that are nearer than that share their rank
RATE = 0.02  # of Adam
WEIGHT, LAST_WEIGHT = 1.0, 100.0  # of the area, in units of what the blur takes from the target


@method(paper="arXiv:1910.08485", claims="class-sensitive")
def extremal_perturbation(
    model: Classifier, x: Tensor, target: Target, *, area: float = 0.1, iterations: int = 150, cells: int = 32
) -> Tensor:
    """The part of the picture, of a given area, that keeps the target highest when the rest is blurred.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0: 1 where the picture stays and 0 where it is blurred, without a unit; the
    receipt "area" is the mean of the map, and "kept" is what stays of the target: 1 is the picture's own, 0 the blur's.
    area: the part of the picture that should stay (the paper adds up the masks of several; here there is one).
    iterations: steps of Adam, forth and back through the network (the paper takes 800 of another kind).  cells: places
    of the mask along each side of a picture; a sequence or a clip has cells^2 in all.

    The mask is the paper's: a smooth maximum over the places around, which reach as far beyond the border as inside
    (else the corners, which feel fewer places, would stand out from the first step on), and its area is that inside
    the picture.  The optimiser is not: the paper's (descent of rate 0.01 from masks of 1/2, area weighing 300 times)
    weighs the area against the target in its own units and, in the few steps that a processor has time for, settles
    on the places that stood out first.  Here all of the picture stays at first, the target is divided by
    |target(x) - target(blur(x))|, and the area weighs 1 in the first step, and 100 in the last.  There are no
    mirrored copies either: a network that reads places would be asked two questions.

    Of two pixels, of which half may stay, the one that the class hangs on stays:

    >>> from clearsight.testing import linear
    >>> from clearsight.targets import ClassScore
    >>> x = torch.tensor([[[[1.0, 0.0]]]])
    >>> extremal_perturbation(linear([[3.0, 0.0], [0.0, 0.0]]), x, ClassScore(0), area=0.5).tolist()
    [[[1.0, 0.0]]]
    """
    if not 0 < area < 1 or iterations < 1 or cells < 1:
        raise Refused(f"extremal-perturbation(area={area}): area between 0 and 1; iterations and cells from 1")
    sides = x.shape[2:]
    grid = [min(side, max(1, round(cells ** (2 / len(sides))))) for side in sides]
    near, beyond = _nearness(grid, sides)
    near = near.to(x)
    wanted = _wanted(area, math.prod(grid)).to(x)
    levels = [x, *(blurred(x, max(1.0, BLUR * max(sides)) * i / (LEVELS - 1)) for i in range(1, LEVELS))]
    with torch.no_grad():
        highest, lowest = target(model(x)), target(model(levels[-1]))
    unit = (highest - lowest).abs().clamp_min(1e-6)
    places = x.new_ones(len(x), *[n + 2 * b for n, b in zip(grid, beyond, strict=True)]).requires_grad_()
    adam = torch.optim.Adam([places], RATE)
    for i in range(iterations):
        places.grad = torch.zeros_like(places)
        weight = WEIGHT * (LAST_WEIGHT / WEIGHT) ** (i / max(1, iterations - 1))
        for rows, _ in pairs(len(x), 1, backward=True):
            here = rows.to(x.device)
            with torch.enable_grad():
                mask = _smooth_max(near, beyond, places[here])
                seen = _between([level[here] for level in levels], 1 - enlarge(mask, sides))
                flat = mask.flatten(1)
                loss = weight * (flat - _ranked(flat.detach(), wanted)).square().mean(1)
                loss = loss - target[rows](model(seen)) / unit[here]
            (g,) = gradients(loss, places)
            places.grad += g
        adam.step()
        with torch.no_grad():
            places.clamp_(0, 1)
    with torch.no_grad():
        maps = torch.cat([enlarge(_smooth_max(near, beyond, p[None]), sides) for p in places])
    receipts.note("area", maps.flatten(1).mean(1))
    if receipts.wanted():
        with torch.no_grad():
            receipts.note("kept", (target(model(_between(levels, 1 - maps))) - lowest) / unit)
    return maps


def _nearness(grid: list[int], sides: torch.Size) -> tuple[Tensor, list[int]]:
    """How much of a place's value reaches those around it (k,), and how many of these there are to each side.

    1 within half a spread, then falling.
    """
    steps = [side / n for n, side in zip(grid, sides, strict=True)]
    spread = SPREAD * max(sides)
    beyond = [math.floor(REACH * spread / step) for step in steps]
    around = [torch.arange(-b, b + 1) * step for b, step in zip(beyond, steps, strict=True)]
    far = torch.stack(torch.meshgrid(around, indexing="ij")).norm(dim=0).flatten() / spread
    return torch.exp(-2 * (far - 0.5).clamp_min(0) ** 2), beyond


def _smooth_max(near: Tensor, beyond: list[int], places: Tensor) -> Tensor:
    """places (B, *s + 2 beyond) -> the mask (B, *s): nearly the largest of the values that reach each place."""
    for axis, b in enumerate(beyond, 1):
        places = places.unfold(axis, 2 * b + 1, 1)
    reach = places.flatten(len(beyond) + 1) * near
    return (reach * F.softmax(SHARPNESS * reach, -1)).sum(-1)


def _wanted(area: float, n: int) -> Tensor:
    """The values of a mask (n,) of that area, rising: zeros, one value between, ones."""
    return (torch.arange(1, n + 1, dtype=torch.float64) - (1 - area) * n).clamp(0, 1)


def _ranked(mask: Tensor, wanted: Tensor) -> Tensor:
    """For each value of mask (B, n), what stands at its rank in wanted (n,), rising; ties share theirs."""
    shared = torch.empty_like(mask)
    for row, values in enumerate((mask / TIE).round()):
        _, group, size = torch.unique(values, return_inverse=True, return_counts=True)
        ends = size.cumsum(0)
        below = F.pad(wanted.cumsum(0), (1, 0))
        shared[row] = ((below[ends] - below[ends - size]) / size)[group]
    return shared


def _between(levels: list[Tensor], blur: Tensor) -> Tensor:
    """The picture blurred more or less: blur (B, *S) from 0 to 1 runs through the levels (B, C, *S)."""
    at = blur[:, None] * (len(levels) - 1)
    total = torch.zeros_like(levels[0])
    for i, level in enumerate(levels):
        total = total + level * (1 - (at - i).abs()).clamp_min(0)
    return total
