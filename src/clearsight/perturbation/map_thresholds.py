"""Masking a picture by a map: masks, filtering, thresholds, and the measures API, APD, IR and DR.

Lee & Han 2022 (Libra-CAM), doi:10.24963/ijcai.2022/442.  The same for the maps of every method, so that they can be
compared.  Calibration chooses a threshold by the very number that API and IR report, so these are then optimistic: also
report maps without a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.core.targets import ClassScore, Margin, Target
from clearsight.errors import Refused
from clearsight.perturbation.removal import Fill, without

LEVELS = tuple(range(0, 100, 10))  # per cent of the places that a threshold may take away
EQUAL = 1e-6  # places that differ by less of a map's range count as equal: rounding must not tell them apart
SLACK = 1e-4  # the same for chances, as a share of their spread


def chances(model: Model, target: Target, outputs: Tensor) -> Tensor:
    """How probable the model finds what is asked about: outputs (B, K) -> (B,).

    Of a class its probability, also where the target is its logit; of "a rather than b" the probability of a where only
    the two are possible.  A regressor's values are taken as they are, and so is a target of another kind.

    >>> from clearsight.testing import linear
    >>> chances(linear([[1.0], [1.0]]), ClassScore(0), torch.tensor([[0.0, 0.0]])).item()
    0.5
    """
    if not isinstance(model, Classifier):
        return target(outputs)
    if isinstance(target, ClassScore):
        return ClassScore(target.index)(model.chances(outputs))
    odds = isinstance(target, Margin) and model.scores != "values"
    return target(outputs).sigmoid() if odds else target(outputs)


def stretched(maps: Tensor) -> Tensor:
    """Each map (B, *S) from 0 at its lowest to 1 at its highest place; 0 everywhere where all places are equal.

    >>> stretched(torch.tensor([[-1.0, 0.0, 3.0]])).tolist()
    [[0.0, 0.25, 1.0]]
    """
    rows = maps.flatten(1)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return ((rows - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)).view(maps.shape)


def mask_by_map(model: Model, x: Tensor, masks: Tensor, fill: Fill = "mean") -> Tensor:
    """Pictures x (B, C, *S) times masks (B, *S) in [0, 1], after normalisation: what is muted has the mean colour.

    Or another fill instead of the mean.
    """
    nothing = without(model, x, fill)
    return nothing + masks[:, None] * (x - nothing)


def without_lowest(maps: Tensor, percent: Tensor | float) -> Tensor:
    """Maps (B, *S) with their lowest places set to 0: percent of them, one number or (B,); the others stay as they are.

    Exactly round(percent / 100 * places) of them, unless places at the cut are equal: then all of those stay.

    >>> without_lowest(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 50.0).tolist()
    [[4.0, 0.0, 3.0, 0.0]]
    """
    rows = maps.flatten(1)
    share = torch.as_tensor(percent, device=maps.device, dtype=torch.float64).expand(len(maps))
    taken = (share * rows.shape[1] / 100).round().long().clamp(0, rows.shape[1] - 1)
    ordered = rows.sort(1).values
    cut = ordered.gather(1, taken[:, None])
    equal = EQUAL * (ordered[:, -1:] - ordered[:, :1]).clamp_min(0)
    return torch.where(rows < cut - equal, 0, rows).view(maps.shape)


def calibrated(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    before: Tensor | None = None,
    levels: Sequence[float] = LEVELS,
    fill: Fill = "mean",
) -> tuple[Tensor, Tensor]:
    """For each picture the threshold under which its chance rises most when it is seen through its map.

    x (B, C, *S), maps (B, *S) in [0, 1] -> the maps without their lowest places, and the thresholds (B,) in per cent.
    before (B,): the chances of the whole pictures, where they are known.  A rise that is no rise counts as 0, and of
    thresholds that do equally well the lowest is taken: where nothing helps, nothing is taken away.
    """
    rises = rises_through(model, x, target, maps, before, levels, fill)
    chosen = rises.new_tensor(levels)[best_level(rises)]
    return without_lowest(maps, chosen), chosen


def best_level(rises: Tensor) -> Tensor:
    """Which of the thresholds is best for each picture, by its rises under each: (B, levels) -> (B,).

    >>> best_level(torch.tensor([[0.1, 0.3, 0.3], [-0.2, -0.1, -0.3]])).tolist()
    [1, 0]
    """
    rises = rises.clamp_min(0)
    best = rises.amax(1, keepdim=True)
    return (rises >= best - SLACK * best).int().argmax(1)


def rises_through(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    before: Tensor | None = None,
    levels: Sequence[float] = LEVELS,
    fill: Fill = "mean",
) -> Tensor:
    """How much the chances rise (or fall) when pictures are seen through their maps: (B, levels), under each threshold.

    One forward for each picture and threshold, and one for its chance before, where that is not given.
    """
    share = x.new_tensor(levels)
    rises = x.new_empty(len(x), len(share))
    with torch.no_grad():
        before = chances(model, target, model(x)) if before is None else before
        for rows, k in pairs(len(x), len(share)):
            masked = mask_by_map(model, x[rows], without_lowest(maps[rows], share[k]), fill)
            rises[rows, k] = chances(model, target[rows], model(masked)) - before[rows]
    return rises


def worth_keeping(rises: Tensor) -> Tensor:
    """Which of one picture's masks to keep, by how much each makes its chance rise: (n,) -> (n,) bool, never none.

    Of those that make it rise: all but what is more than a standard deviation below their mean.  Where none does: only
    what is more than one above the mean of all, and all if there is none.

    >>> worth_keeping(torch.tensor([0.4, 0.3, 0.0, -0.1])).tolist()
    [True, True, False, False]
    """
    rises = rises.double()
    better = rises > 0
    among = rises[better] if bool(better.any()) else rises
    mean, spread = among.mean(), among.std(correction=0)
    slack = SLACK * spread + 1e-9 * mean.abs()  # of two values the lower is exactly mean - spread
    if bool(better.any()):
        return better & (rises >= mean - spread - slack)
    outstanding = rises > mean + spread + slack
    return outstanding if bool(outstanding.any()) else torch.ones_like(better)


@dataclass(frozen=True, eq=False)
class Measures:
    """For each picture (B,), of which the mean over pictures is reported: how much its chance rose and fell, and if."""

    rise: Tensor  # API, average probability increase: max(0, after - before)
    fall: Tensor  # APD, average probability drop: max(0, before - after)
    rises: Tensor  # IR, increase rate: after > before
    falls: Tensor  # DR, drop rate: after < before


def measures(change: Tensor) -> Measures:
    """API, APD, IR and DR from how much each picture's chance changed, (B,): absolute, and strict both ways.

    >>> measures(torch.tensor([0.25, -0.5, 0.0])).rise.tolist()
    [0.25, 0.0, 0.0]
    """
    return Measures(change.clamp_min(0), (-change).clamp_min(0), (change > 0).float(), (change < 0).float())


def check_threshold(percent: float | None, name: str) -> None:
    """Refuse what is no threshold: none (calibrated), or per cent from 0 to 90."""
    if percent is not None and not 0 <= percent <= LEVELS[-1]:
        raise Refused(
            f"{name}(threshold={percent:g}): threshold must be none, or from 0 to {LEVELS[-1]} per cent of the places"
        )
