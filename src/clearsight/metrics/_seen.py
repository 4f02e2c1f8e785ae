"""How probable the class is when a picture is seen through its map, as Libra-CAM's measures ask."""

from __future__ import annotations

import warnings

from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.errors import Notice, Refused
from clearsight.perturbation.map_thresholds import LEVELS, calibrated, chances, rises_through, stretched
from clearsight.perturbation.removal import Fill

FLATTERS = (
    "threshold=none chooses each map's threshold by the very number that is then reported, which flatters: calibrate "
    "on other pictures, explainer-ranking(calibrate=8, metrics=...), or give one threshold for all"
)


def through(
    model: Classifier, x: Tensor, target: Target, maps: Tensor, threshold: float | None, fill: Fill
) -> tuple[Tensor, Tensor]:
    """The chance of the class for whole pictures x (B, C, *S) and for those seen through maps (B, *S): (B,) each.

    Each map runs from 0 at its lowest to 1 at its highest place, and what it mutes becomes the fill.  threshold: per
    cent of the lowest places that are muted altogether, or None for the one of 0, 10, ... 90 under which the chance
    rises most, picture by picture: the same calibration for every method, which has seen what it is judged by.
    """
    if threshold is not None and not 0 <= threshold <= LEVELS[-1]:
        raise Refused(f"threshold={threshold:g}: none, or per cent of the places from 0 to {LEVELS[-1]}")
    soft = stretched(maps)
    before = chances(model, target, model(x)).detach()
    if threshold is None:
        warnings.warn(FLATTERS, Notice, stacklevel=2)
        soft, _ = calibrated(model, x, target, soft, before, fill=fill)
        threshold = 0.0
    return before, before + rises_through(model, x, target, soft, before, (threshold,), fill=fill)[:, 0]
