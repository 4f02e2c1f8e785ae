"""Pictures of a detector's or a segmenter's data as evidence, and tables that their checks share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from clearsight.auditing.place_case import PlaceCase
from clearsight.core.statistics import Interval
from clearsight.drawing.heatmaps import png
from clearsight.evaluation.records import Numbers
from clearsight.evaluation.resampling import interval_over_pictures, ratio
from clearsight.reporting.findings import Cell, Evidence, Figure


def evidence_of(
    case: PlaceCase, row: int, name: str, image: Image.Image, caption: str, facts: dict[str, Cell], check: str
) -> Evidence:
    """One picture of the data with what a check found on it, and the command that runs the check again.

    name: of the figure, without its suffix.  check: spelling of the check.
    """
    picture = case.pictures[row].name
    figure = Figure(f"{name}.png", png(image), caption, f"{picture}: {caption}")
    return Evidence(picture, figure, facts, case.commands.of_data("audit", "--only", check))


def interval_of_ratio(
    part: Sequence[float] | Numbers, whole: Sequence[float] | Numbers, seed: int, *, shares: bool = True
) -> Interval | None:
    """The 95 % interval of a sum by a sum over pictures, (n,) each.

    Whole pictures are drawn, because what one of them shows is not independent.  shares: whether the ratio lies between
    0 and 1.
    """
    rows = np.stack([np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)], 1)
    [interval] = interval_over_pictures(rows, lambda sums: ratio(sums[:, :1], sums[:, 1:]), seed, shares=shares)
    return interval
