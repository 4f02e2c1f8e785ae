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
from clearsight.explainers.common.blur_levels import blur_between, mix, shares_of
from clearsight.explainers.common.gradient import folded_outputs, many_passes
from clearsight.explainers.common.smooth_maximum import Ring, rings_of, smooth_maximum
from clearsight.internals.fused_forward import fused_forward
from clearsight.internals.layers import enlarge, flowing, gradients
from clearsight.internals.vjp import vjp
from clearsight.perturbation.removal import blurred

SPREAD = 21 / 224  # of a place of the mask, and
BLUR = 20 / 224  # of the strongest blur, both in parts of the longest side
LEVELS = 8  # of blur
AT_224 = 3 * 224 * 224  # numbers of a picture, of which
FEW = 4  # go in one pass forth and back, for which what they are mixed from is kept too; more of smaller ones
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
    longest = max(sides)
    levels = torch.stack([x, *(blurred(x, max(1.0, BLUR * longest) * i / (LEVELS - 1)) for i in range(1, LEVELS))], 1)
    discs = disc_masks(area, grid, sides).to(x)
    passes = len(x) * (iterations + math.prod(discs.shape[: len(grid)]) + 2)
    with torch.no_grad(), many_passes(model, x, passes), fused_forward(model, x, passes):
        whole, blur = target(model(x)), target(model(levels[:, -1]))
        tried = _tried(model, levels, target, discs)
        every = torch.cat([tried.flatten(1), whole[:, None], blur[:, None]], 1)
        unit = (every.amax(1) - every.amin(1)).clamp_min(1e-6)
        masks = _optimised(model, levels, target, unit, enlarge(_to_one(tried), tuple(grid)), area, iterations)
        maps = enlarge(masks, sides)
        ended = target(model(blur_between(levels, 1 - maps)))
        best, which = tried.flatten(1).max(1)
        worse = (best > ended).view(-1, *[1] * len(sides))
        maps = torch.where(worse, enlarge(discs.flatten(0, len(sides) - 1)[which], sides), maps)
    diagnostics.note("area", maps.flatten(1).mean(1))
    diagnostics.note("kept", ((best.maximum(ended) - blur) / (whole - blur)).nan_to_num(0, 0, 0))
    return maps


def _optimised(
    model: Model, levels: Tensor, target: Target, unit: Tensor, seeds: Tensor, area: float, iterations: int
) -> Tensor:
    """The masks (B, *grid) after so many steps from seeds (B, *grid), for levels (B, L, C, *S) of the pictures.

    unit (B,): by what the target is divided.
    """
    sides = levels.shape[3:]
    near, beyond = nearness([*seeds.shape[1:]], sides)
    rings = rings_of(near, beyond)
    edges = [b for b in reversed(beyond) for _ in range(2)]
    places = F.pad(seeds[:, None], edges, mode="replicate")[:, 0].requires_grad_()
    adam = torch.optim.Adam([places], RATE)
    few = max(1, FEW * AT_224 // levels[0, 0].numel())
    for i in range(iterations):
        with torch.enable_grad():
            masks = smooth_max(rings, beyond, places)
        weight = WEIGHT * (LAST_WEIGHT / WEIGHT) ** (i / max(1, iterations - 1))
        flat = masks.detach().flatten(1)
        slopes = (2 * weight / flat.shape[1] * (flat - template_at_rank(flat, area))).view_as(masks)
        for rows, _ in pairs(len(levels), 1, few, backward=True):
            here = slice(int(rows[0]), int(rows[-1]) + 1)  # they follow one another: nothing is copied
            part = masks.detach()[here].requires_grad_()
            with torch.enable_grad():
                seen = blur_between(levels[here], 1 - enlarge(part, sides))
                kept = flowing(target[rows](folded_outputs(model, seen))) / unit[here]
            slopes[here] -= gradients(kept, part)[0]
        places.grad = vjp(masks, places, slopes)
        adam.step()
        places.clamp_(0, 1)
    return smooth_max(rings, beyond, places.detach())


def _tried(model: Model, levels: Tensor, target: Target, discs: Tensor) -> Tensor:
    """The target where only a disc stays, for each of discs (*looks, *grid): (B, *looks)."""
    looks = discs.shape[: discs.dim() // 2]
    discs = discs.flatten(0, len(looks) - 1)
    kept = levels.new_empty(len(levels), len(discs))
    for _, which in pairs(1, len(discs)):
        shares = shares_of(LEVELS, 1 - enlarge(discs[which.to(discs.device)], levels.shape[3:]))
        for i, row in enumerate(torch.arange(len(levels))):
            kept[i, which.to(kept.device)] = target[row.expand(len(which))](model(mix(levels[i : i + 1], shares)))
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


def smooth_max(rings: list[Ring], beyond: list[int], places: Tensor) -> Tensor:
    """places (B, *s + 2 beyond) -> the mask (B, *s): nearly the largest of the values that reach each place."""
    return smooth_maximum(rings, beyond, places, SHARPNESS)


def area_template(area: float, n: int) -> Tensor:
    """The values of a mask (n,) of that area, rising: zeros, one value between, ones."""
    return (torch.arange(1, n + 1, dtype=torch.float64) - (1 - area) * n).clamp(0, 1)


def template_at_rank(masks: Tensor, area: float) -> Tensor:
    """For each value of masks (B, n), what stands at its rank in a mask of that area; ties share theirs.

    Only those that tie with the lowest value that is not to be 0 share anything else than 0 or 1.
    """
    wanted = area_template(area, masks.shape[1])
    lowest = int((wanted == 0).sum()) + 1
    levels = (masks / TIE).round()
    least = levels.kthvalue(lowest, dim=1, keepdim=True).values
    above, ties = levels > least, levels == least
    left = float(wanted.sum()) - above.sum(1, keepdim=True).double()
    return torch.where(ties, (left / ties.sum(1, keepdim=True)).to(masks), above.to(masks))
