"""The probability of the class when a picture is seen through its map, for the measures of Libra-CAM."""

from __future__ import annotations

import warnings

from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Notice, Refused
from clearsight.perturbation.map_thresholds import LEVELS, calibrated, chances, rises_through, stretched
from clearsight.perturbation.removal import Fill

FLATTERS = (
    "threshold=none chooses each map's threshold by the very number that is then reported, which flatters: calibrate "
    "on other pictures, explainer-ranking(calibrate=8, metrics=...), or give one threshold for all"
)


def through(
    model: Model, x: Tensor, target: Target, maps: Tensor, threshold: float | None, fill: Fill
) -> tuple[Tensor, Tensor]:
    """The probability of the class for whole pictures x (B, C, *S) and for those seen through maps (B, *S): (B,) each.

    Each map is scaled from 0 at its lowest to 1 at its highest place, and what it mutes becomes the fill.  threshold:
    percentage of the lowest places that are muted altogether.  None chooses, for each picture, the one of 0, 10, ... 90
    under which the probability rises most.  This calibration is the same for every method, but it uses the number that
    is then reported.
    """
    if threshold is not None and not 0 <= threshold <= LEVELS[-1]:
        raise Refused(f"threshold must be none, or from 0 to {LEVELS[-1]} per cent of the places, not {threshold:g}")
    soft = stretched(maps)
    before = chances(model, target, model(x)).detach()
    if threshold is None:
        warnings.warn(FLATTERS, Notice, stacklevel=2)
        soft, _ = calibrated(model, x, target, soft, before, fill=fill)
        threshold = 0.0
    return before, before + rises_through(model, x, target, soft, before, (threshold,), fill=fill)[:, 0]
