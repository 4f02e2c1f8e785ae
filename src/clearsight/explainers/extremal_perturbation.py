"""Fong, Patrick & Vedaldi 2019, arXiv:1910.08485, sections 3.1 to 3.3, with another optimiser than the paper's."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.core import diagnostics
from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.layers import enlarge, flowing, gradients
from clearsight.perturbation.removal import blurred

SPREAD = 21 / 224  # of a place of the mask, and
BLUR = 20 / 224  # of the strongest blur, both in parts of the longest side
LEVELS = 8  # of blur
FEW = 2  # pictures in one pass forth and back, for which what they are mixed from is kept too
LOOKS = 64  # discs that are tried first
REACH = 2.0  # spreads, beyond which a place is not felt
SHARPNESS = 20.0  # of the smooth maximum
TIE = 1e-4  # values of the mask that are nearer than that share their rank
RATE = 0.02  # of Adam
WEIGHT, LAST_WEIGHT = 1.0, 300.0  # of the area, in units of the target's range


@method(paper="arXiv:1910.08485", claims="class-sensitive")
def extremal_perturbation(
    model: Model, x: Tensor, target: Target, *, area: float = 0.1, iterations: int = 100, cells: int = 32
) -> Tensor:
    """The part of the picture, of a given area, that keeps the target highest when the rest is blurred.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0: 1 where the picture stays and 0 where it is blurred, without a unit.  The
    diagnostic "area" is the mean of the map.  The diagnostic "kept" is what remains of the target: 1 is the picture's
    own value, 0 the blur's.  Before the first step there are 66 forward passes, and one after the last.

    The mask is the paper's: a smooth maximum over the surrounding places, which count from as far beyond the border as
    from inside it.  Otherwise the corners, which have fewer places around them, stand out from the first step on and
    remain.  The mask's area is measured inside the picture.

    The optimiser is not the paper's.  The paper's optimiser (descent at rate 0.01 from masks of 1/2, where the area
    weighs 300 times a target in its own units; 120 steps, with the growth of 800) kept -0.06 and 0.20 of the target on
    the demo's cat and coffee.  Random masks kept -0.06 and 0.09 on average, and the best of the discs 0.60 and 0.43.
    Therefore discs of the area are tried all over the picture, and the mask starts from what they keep, with 1 at the
    best disc.  The target is divided by its range over these discs, the picture and its blur.  The area weighs 1 in the
    first step and 300 in the last.  Mirrored copies are not used: a network that reads places would be asked a
    different question.  Where the mask finally keeps less than the best disc, that disc is the map.

    Args:
        area: share of the picture that should stay, between 0 and 1.  The paper adds up the masks of several areas;
            here there is one.
        iterations: steps of Adam, each one forward and one backward pass (the paper takes 800 of its own).
        cells: places of the mask along each side of a picture; a sequence or a clip has cells^2 in all.

    Of two pixels, half of which may stay, the one that determines the class stays:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[1.0, 0.0]]]])
    >>> extremal_perturbation(linear([[3.0, 0.0], [0.0, 0.0]]), x, ClassScore(0), area=0.5).tolist()
    [[[1.0, 0.0]]]
    """
    if not 0 < area < 1 or iterations < 1 or cells < 1:
        raise Refused(
            f"extremal-perturbation(area={area}): area must be above 0 and below 1, iterations and cells at least 1"
        )
    sides = x.shape[2:]
    grid = [min(side, max(1, round(cells ** (2 / len(sides))))) for side in sides]
    near, beyond = nearness(grid, sides)
    near = near.to(x)
    wanted = area_template(area, math.prod(grid)).to(x)
    levels = [x, *(blurred(x, max(1.0, BLUR * max(sides)) * i / (LEVELS - 1)) for i in range(1, LEVELS))]
    with torch.no_grad():
        whole, blur = target(model(x)), target(model(levels[-1]))
        discs = disc_masks(area, grid, sides).to(x)
        tried = _tried(model, levels, target, discs)
        every = torch.cat([tried.flatten(1), whole[:, None], blur[:, None]], 1)
        unit = (every.amax(1) - every.amin(1)).clamp_min(1e-6)
        seeds = enlarge(_to_one(tried), tuple(grid))
    edges = [b for b in reversed(beyond) for _ in range(2)]
    places = F.pad(seeds[:, None], edges, mode="replicate")[:, 0].requires_grad_()
    adam = torch.optim.Adam([places], RATE)
    for i in range(iterations):
        places.grad = torch.zeros_like(places)
        weight = WEIGHT * (LAST_WEIGHT / WEIGHT) ** (i / max(1, iterations - 1))
        for rows, _ in pairs(len(x), 1, FEW, backward=True):
            index = rows.to(x.device)
            with torch.enable_grad():
                mask = smooth_max(near, beyond, places[index])
                seen = blur_between([level[index] for level in levels], 1 - enlarge(mask, sides))
                flat = mask.flatten(1)
                loss = weight * (flat - value_at_rank(flat.detach(), wanted)).square().mean(1)
                loss = loss - flowing(target[rows](model(seen))) / unit[index]
            (g,) = gradients(loss, places)
            places.grad += g
        adam.step()
        with torch.no_grad():
            places.clamp_(0, 1)
    with torch.no_grad():
        maps = torch.cat([enlarge(smooth_max(near, beyond, p[None]), sides) for p in places])
        ended = target(model(blur_between(levels, 1 - maps)))
        best, which = tried.flatten(1).max(1)
        worse = (best > ended).view(-1, *[1] * len(sides))
        maps = torch.where(worse, enlarge(discs.flatten(0, len(sides) - 1)[which], sides), maps)
    diagnostics.note("area", maps.flatten(1).mean(1))
    diagnostics.note("kept", ((best.maximum(ended) - blur) / (whole - blur)).nan_to_num(0, 0, 0))
    return maps


def _tried(model: Model, levels: list[Tensor], target: Target, discs: Tensor) -> Tensor:
    """The target where only a disc stays, for each of discs (*looks, *grid): (B, *looks)."""
    x = levels[0]
    looks = discs.shape[: discs.dim() // 2]
    discs = discs.flatten(0, len(looks) - 1)
    kept = x.new_empty(len(x), len(discs))
    for rows, versions in pairs(len(x), len(discs)):
        index, which = rows.to(x.device), versions.to(x.device)
        blur = 1 - enlarge(discs[which], x.shape[2:])
        kept[index, which] = target[rows](model(blur_between([level[index] for level in levels], blur)))
    return kept.view(-1, *looks)


def _to_one(values: Tensor) -> Tensor:
    """Each row of values (B, *s) from 0, its lowest, to 1, its highest."""
    axes = tuple(range(1, values.dim()))
    low = values.amin(axes, keepdim=True)
    return (values - low) / (values.amax(axes, keepdim=True) - low).clamp_min(1e-6)


def disc_masks(area: float, grid: list[int], sides: torch.Size) -> Tensor:
    """Masks (*looks, *grid) of ones at the places nearest to points that are spread evenly over the picture."""
    looks = [min(n, max(1, round(LOOKS ** (1 / len(grid))))) for n in grid]

    def spread(ns: list[int]) -> Tensor:
        axes = [(torch.arange(n) + 0.5) * side / n for n, side in zip(ns, sides, strict=True)]
        return torch.stack(torch.meshgrid(axes, indexing="ij"), -1).flatten(0, -2)

    far = (spread(looks)[:, None] - spread(grid)).square().sum(-1)
    rank = far.argsort(dim=1, stable=True).argsort(dim=1)
    return (rank < max(1, round(area * math.prod(grid)))).float().view(*looks, *grid)


def nearness(grid: list[int], sides: torch.Size) -> tuple[Tensor, list[int]]:
    """How much of a place's value reaches those around it (k,), and how many of these there are to each side.

    1 within half a spread, then falling.
    """
    steps = [side / n for n, side in zip(grid, sides, strict=True)]
    spread = SPREAD * max(sides)
    beyond = [math.floor(REACH * spread / step) for step in steps]
    around = [torch.arange(-b, b + 1) * step for b, step in zip(beyond, steps, strict=True)]
    far = torch.stack(torch.meshgrid(around, indexing="ij")).norm(dim=0).flatten() / spread
    return torch.exp(-2 * (far - 0.5).clamp_min(0) ** 2), beyond


def smooth_max(near: Tensor, beyond: list[int], places: Tensor) -> Tensor:
    """places (B, *s + 2 beyond) -> the mask (B, *s): nearly the largest of the values that reach each place."""
    for axis, b in enumerate(beyond, 1):
        places = places.unfold(axis, 2 * b + 1, 1)
    reach = places.flatten(len(beyond) + 1) * near
    return (reach * F.softmax(SHARPNESS * reach, -1)).sum(-1)


def area_template(area: float, n: int) -> Tensor:
    """The values of a mask (n,) of that area, rising: zeros, one value between, ones."""
    return (torch.arange(1, n + 1, dtype=torch.float64) - (1 - area) * n).clamp(0, 1)


def value_at_rank(mask: Tensor, wanted: Tensor) -> Tensor:
    """For each value of mask (B, n), what stands at its rank in wanted (n,), rising; ties share theirs."""
    shared = torch.empty_like(mask)
    for row, values in enumerate((mask / TIE).round()):
        _, group, size = torch.unique(values, return_inverse=True, return_counts=True)
        ends = size.cumsum(0)
        below = F.pad(wanted.cumsum(0), (1, 0))
        shared[row] = ((below[ends] - below[ends - size]) / size)[group]
    return shared


def blur_between(levels: list[Tensor], blur: Tensor) -> Tensor:
    """The picture blurred more or less: blur (B, *S) from 0 to 1 runs through the levels (B, C, *S)."""
    at = blur[:, None] * (len(levels) - 1)
    total = torch.zeros_like(levels[0])
    for i, level in enumerate(levels):
        total = total + level * (1 - (at - i).abs()).clamp_min(0)
    return total
