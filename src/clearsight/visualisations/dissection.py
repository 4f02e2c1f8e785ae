"""Bau et al. 2017, arXiv:1704.05796: network dissection, which units are detectors of concepts that people named."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.label_names import plain
from clearsight.core.text import counted
from clearsight.data.annotations import region_mask
from clearsight.data.images import open_picture
from clearsight.drawing.heatmaps import photo, strip
from clearsight.errors import Refused
from clearsight.feature_report.report import FeatureContext
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Cell, Table
from clearsight.reporting.pages import Block, Page, Shown, layer_page, unit_page
from clearsight.visualisations.common.counts import at_least
from clearsight.visualisations.common.thumbnails import small

_UNITS = 64  # maps enlarged at a time
_DRAWN = 6


@method(paper="arXiv:1704.05796", order=7)
def dissection(
    inside: FeatureContext, *, quantile: float = 0.005, iou: float = 0.04, pictures: int = 1000
) -> Iterator[Page]:
    """Which units detect which of the annotated objects, by the overlap of each unit's map with the objects' masks.

    A unit is high where its map, enlarged to the picture (H, W), reaches the value that only the top of all its places
    in all pictures reach.  IoU is over the whole set: the pixels that are both high and in the mask, in all annotated
    pictures together, divided by those that are either.  As a control each picture is also paired with the masks of the
    next one.

    Args:
        quantile: share of a unit's places that count as high, above 0 and below 1.
        iou: a unit detects the concept of its highest IoU if that is above this number; at least 0 and below 1.
        pictures: maximum number of annotated pictures, drawn by seed; at least 1.

    Refused: pictures without masks or boxes, layers without places, and options outside their ranges.
    """
    at_least(pictures=pictures)
    if not 0 < quantile < 1 or not 0 <= iou < 1:
        raise Refused("quantile must be above 0 and below 1, iou at least 0 and below 1")
    rows = inside.case.sample(inside.case.annotated, pictures) if inside.case.annotated else []
    if not rows:
        raise Refused(
            "the pictures have no masks or boxes: give boxes=FILE (--boxes FILE) or masks=FOLDER (--masks FOLDER)"
        )
    for layer in inside.every_layer():
        yield _page(inside, layer, sorted(rows), quantile, iou)


@dataclass
class Overlaps:
    """Pixels where each unit is high (K,), pixels of each concept, and of both (K,), summed over the pictures.

    pictures: how many pictures have each concept; n: how many were read.
    """

    high: Tensor
    concept: dict[str, int]
    both: dict[str, Tensor]
    pictures: dict[str, int]
    n: int = 0

    def iou(self) -> tuple[list[str], Tensor]:
        """The concepts' names, and IoU (K, concepts)."""
        names = sorted(self.concept)
        columns = [self.both[c] / (self.high + self.concept[c] - self.both[c]).clamp_min(1) for c in names]
        return names, torch.stack(columns, 1)


def _page(inside: FeatureContext, layer: str, rows: list[int], quantile: float, iou: float) -> Page:
    used, level = levels(inside, layer, rows, quantile)
    overlap, control = overlaps(inside, layer, used, level)
    names, table = overlap.iou()
    best, which = table.max(1)
    detectors = [int(u) for u in best.argsort(descending=True, stable=True) if best[u] > iou]
    by_chance = int((control.iou()[1].max(1).values > iou).sum()) if control.concept else 0
    lines: list[dict[str, Cell]] = []
    for u in detectors:
        c = names[int(which[u])]
        lines.append(
            {"unit": f"unit {u}", "concept": c, "IoU": float(best[u]), "pictures with it": overlap.pictures[c]}
        )
    concepts = {names[int(which[u])] for u in detectors}
    highest = "" if detectors else f" The highest IoU is {float(best.max()):.3g}."
    words = (
        f"{counted(len(detectors), 'unit')} of {len(best)} with an IoU above {iou:g}, for "
        f"{counted(len(concepts), 'concept')} of {len(names)}, on {counted(overlap.n, 'annotated picture')}; with the "
        f"masks of the next picture the number of units is {by_chance}.{highest}"
    )
    note = (
        f"High is the top {100 * quantile:g} % of a unit's places. The IoU is the best over "
        f"{counted(len(best), 'unit')} × {counted(len(names), 'concept')}, which on few pictures is high by chance: "
        "compare it with the number for the next picture's masks, and look at how many pictures have the concept."
    )
    block = Block(
        "Detectors of annotated objects",
        words,
        tuple(
            _draw_detector(inside, layer, used, u, level[u], names[int(which[u])], float(best[u]))
            for u in detectors[:_DRAWN]
        ),
        tables=(Table("Units, the highest IoU first", tuple(lines)),) if lines else (),
        notes=(note,),
        links={f"unit {u}": unit_page(layer, u) for u in detectors},
        layer=layer,
    )
    return Page(layer_page(layer), layer, (block,))


def levels(inside: FeatureContext, layer: str, rows: list[int], quantile: float) -> tuple[list[int], Tensor]:
    """The rows that the budget allowed, and for each unit the value (K,) that the top quantile of its places reach.

    Only the highest values of each unit are kept.
    """
    top = torch.empty(0)
    used: list[int] = []
    for part, _, caught in inside.passes(layer, rows):
        if not caught.maps:
            raise Refused(f"layer {layer} has no places: dissection compares feature maps with masks")
        preactivation = caught.preactivation.flatten(2).transpose(0, 1).flatten(1).float().cpu()
        places = caught.preactivation.shape[2] * caught.preactivation.shape[3]
        keep = max(1, math.ceil(quantile * places * len(rows)))
        used += part
        top = torch.cat([top, preactivation], 1) if len(top) else preactivation
        top = top.topk(min(keep, top.shape[1]), dim=1).values
    return used, top[:, min(top.shape[1], max(1, round(quantile * places * len(used)))) - 1]


def overlaps(inside: FeatureContext, layer: str, rows: list[int], level: Tensor) -> tuple[Overlaps, Overlaps]:
    """The overlap of units and concepts; and, as a control, that of each picture with the masks of the next one."""
    overlap, control = _no_overlaps(len(level)), _no_overlaps(len(level))
    masks = {i: _concept_masks(inside, row) for i, row in enumerate(rows[:1])}
    n = 0
    for part, x, caught in inside.passes(layer, rows):
        for i in range(len(part)):
            last = n + 1 == len(rows)
            own_masks = masks.pop(n) if n else masks[0]
            masks[n + 1] = masks[0] if last else _concept_masks(inside, rows[n + 1])
            _add_picture(
                caught.preactivation[i].float().cpu(), level, x.shape[2:], own_masks, overlap, masks[n + 1], control
            )
            n += 1
    overlap.n = n
    return overlap, control if n > 1 else _no_overlaps(len(level))


def _no_overlaps(units: int) -> Overlaps:
    def zeros() -> Tensor:
        return torch.zeros(units, dtype=torch.float64)

    return Overlaps(zeros(), defaultdict(int), defaultdict(zeros), defaultdict(int))


def _add_picture(
    preactivation: Tensor,
    level: Tensor,
    size: torch.Size,
    own_masks: dict[str, Tensor],
    overlap: Overlaps,
    next_masks: dict[str, Tensor],
    control: Overlaps,
) -> None:
    for start in range(0, len(preactivation), _UNITS):
        part = slice(start, start + _UNITS)
        high = high_at(preactivation[part], level[part], size).flatten(1).float()
        for masks, into in ((own_masks, overlap), (next_masks, control)):
            into.high[part] += high.sum(1).double()
            for name, mask in masks.items():
                into.both[name][part] += (high @ mask.flatten().float()).double()
    for masks, into in ((own_masks, overlap), (next_masks, control)):
        for name, mask in masks.items():
            into.concept[name] += int(mask.sum())
            into.pictures[name] += 1


def high_at(preactivation: Tensor, level: Tensor, size: torch.Size) -> Tensor:
    """bool (K, H, W): where maps (K, h, w), enlarged bilinearly, are at or above their level (K,)."""
    large = torch.nn.functional.interpolate(preactivation[None], tuple(size), mode="bilinear", align_corners=False)[0]
    return large >= level[:, None, None]


def _concept_masks(inside: FeatureContext, row: int) -> dict[str, Tensor]:
    """Each concept's mask (H, W) in the picture as the model sees it; those that were cut away are left out."""
    p = inside.pictures[row]
    size = open_picture(p.path).size
    groups = defaultdict(list)
    for region in p.regions or ():
        groups[plain(region.label) if region.label else "object"].append(region)
    masks = {name: region_mask(regions, size, inside.model.preprocess) for name, regions in groups.items()}
    return {name: mask for name, mask in masks.items() if bool(mask.any())}


def _draw_detector(
    inside: FeatureContext, layer: str, rows: list[int], unit: int, level: Tensor, concept: str, iou: float
) -> Shown:
    """The annotated picture with the concept in which the unit is highest: where it is high, and the mask."""
    peak, row, x, preactivation = -math.inf, rows[0], None, None
    rows_with_concept = [
        r
        for r in rows
        if any((plain(g.label) if g.label else "object") == concept for g in inside.pictures[r].regions or ())
    ]
    for part, pixels, caught in inside.passes(layer, rows_with_concept):
        peaks = caught.preactivation[:, unit].flatten(1).amax(1)
        i = int(peaks.argmax())
        if float(peaks[i]) > peak:
            peak, row, x, preactivation = (
                float(peaks[i]),
                part[i],
                pixels[i].cpu(),
                caught.preactivation[i, unit : unit + 1].float().cpu(),
            )
    assert x is not None
    assert preactivation is not None
    high = high_at(preactivation, level[None], x.shape[1:])[0]
    image = strip([small(photo(x, high)), small(photo(x, _concept_masks(inside, row).get(concept)))])
    name = inside.name(row)
    drawn = figure(f"{layer}-{unit}-{concept}", image, f"Unit {unit} and the mask of {concept} in {name}")
    return Shown(f"unit {unit}: {concept}", drawn, {"IoU": iou, "in": name}, unit_page(layer, unit))
