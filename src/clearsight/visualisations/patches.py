"""Zhou et al. 2015, arXiv:1412.6856, section 3.1: the parts of pictures that a unit responds to most."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.text import counted
from clearsight.drawing.heatmaps import strip
from clearsight.feature_report.report import FeatureContext
from clearsight.internals.capture import Field, receptive_fields
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Cell
from clearsight.reporting.pages import Block, Page, Shown, layer_page, unit_page
from clearsight.visualisations.common.counts import at_least
from clearsight.visualisations.common.thumbnails import cut, lit

Place = tuple[float, int, int, int]  # activation, row of the picture, row and column in the layer


@method(paper="arXiv:1412.6856", order=2)
def patches(inside: FeatureContext, *, top: int = 9, overlap: float = 0.5) -> Iterator[Page]:
    """The strongest places of each unit in all pictures, cut out by what such a place can see.

    The receptive field of a place is measured by gradients of noise pictures and cut off at the edge of the picture.
    If it is much of the picture, a double line runs around where the unit is above half of its height.

    Args:
        top: number of places of each unit, as far as it is above zero there; at least 1.
        overlap: two places of one picture are both shown only if their receptive fields share at most this part of the
            smaller one, so that the same thing is not shown twice.

    Refused: a top below 1.
    """
    at_least(top=top)
    for layer in inside.every_layer():
        strips = []
        best = inside.best(layer, top)
        for unit in inside.units(layer):
            places, fields, shown = _patches(inside, layer, unit, top, overlap)
            page = unit_page(layer, unit)
            height, width = inside.model.preprocess.size
            area = max((f[2] - f[0]) * (f[3] - f[1]) for f in fields) / (height * width)
            of = sorted({f"{f[2] - f[0]} × {f[3] - f[1]}" for f in fields})
            see = "the whole picture" if area == 1 else f"{' or '.join(of[:3])} of {width} × {height} pixels"
            down = f" down to {places[-1][0]:.3g}" if len(places) > 1 else ""
            words = (
                f"The {counted(len(places), 'place') if down else 'only place'} with the highest activation among "
                f"{counted(best.n, 'picture')}: {places[0][0]:.3g}{down}. A place of "
                f"this layer can see {see}."
            )
            notes = ["The double line runs around where the unit is above half of its height there."] * (area > 0.25)
            if best.maps:
                high, wide = best.shape[1:]
                notes.append(f"A place is a row and a column of the layer's map of {high} × {wide}, counted from 0.")
            block = Block(
                "Strongest patches",
                words,
                tuple(s for s, _ in shown),
                notes=tuple(notes),
                small=True,
                layer=layer,
                units=(unit,),
            )
            yield Page(page, f"{layer}, unit {unit}", (block,))
            row = figure(f"{layer}-{unit}-strip", strip([im for _, im in shown[:3]]), f"Patches of unit {unit}")
            strips.append(Shown(f"unit {unit}", row, {"highest": places[0][0], "in": inside.name(places[0][1])}, page))
        words = f"{counted(len(strips), 'unit')} of {best.shape[0]}, each with its strongest patches."
        yield Page(
            layer_page(layer), layer, (Block("Units", words, tuple(strips), layer=layer, units=inside.named_units),)
        )


def _patches(
    inside: FeatureContext, layer: str, unit: int, top: int, overlap: float
) -> tuple[list[Place], list[Field], list[tuple[Shown, Image.Image]]]:
    """The unit's strongest places that are not the same, what they see, and their pictures."""
    best = inside.best(layer, top)
    rows = sorted(
        set(best.rows[unit, :top].tolist())
    )  # the strongest places lie in the pictures with the highest peaks
    maps: dict[int, Tensor] = {}
    pixels: dict[int, Tensor] = {}
    for part, x, caught in inside.passes(layer, rows):
        maps |= {r: caught.preactivation[i, unit].float().cpu() for i, r in enumerate(part)}
        pixels |= {r: x[i].cpu() for i, r in enumerate(part)}
    places, fields = _strongest_places(inside, layer, maps, top, overlap)
    shown = []
    for (value, row, y, x_), field in zip(places, fields, strict=True):
        left, upper, right, lower = field
        region = (
            lit(maps[row], pixels[row].shape[1:])
            if (right - left) * (lower - upper) > _quarter_of_picture(inside)
            else None
        )
        image = cut(pixels[row], field, region)
        name = inside.name(row)
        drawn = figure(f"{layer}-{unit}-{name}-{y}-{x_}", image, f"Unit {unit} at {value:.3g} in {name}")
        facts: dict[str, Cell] = {"activation": value}
        if best.maps:
            facts["place"] = f"{y}, {x_}"
        facts["picture"] = inside.describe(row)
        shown.append((Shown(name, drawn, facts), image))
    return places, fields, shown


def _strongest_places(
    inside: FeatureContext, layer: str, maps: dict[int, Tensor], top: int, overlap: float
) -> tuple[list[Place], list[Field]]:
    """The highest places of all maps {row: (h, w)}, none whose field is mostly another's of the same picture."""
    rows = list(maps)
    flat = torch.stack([maps[r].flatten() for r in rows])
    width = maps[rows[0]].shape[1]
    order = flat.flatten().argsort(descending=True, stable=True)
    places: list[Place] = []
    fields: list[Field] = []
    field_at: dict[tuple[int, int], Field] = {}
    full: set[int] = set()  # pictures of which one field is the whole
    for at in order.tolist():
        i, place = divmod(at, flat.shape[1])
        if places and flat[i, place] <= 0:
            break
        if i in full:
            continue
        y, x = divmod(place, width)
        if (y, x) not in field_at:
            field_at[y, x] = receptive_fields(inside.model, layer, [(y, x)])[0]
        field = field_at[y, x]
        if any(r == rows[i] and shared(field, f) > overlap for (_, r, _, _), f in zip(places, fields, strict=True)):
            continue
        places.append((float(flat[i, place]), rows[i], y, x))
        fields.append(field)
        if field == (0, 0, *reversed(inside.model.preprocess.size)):
            full.add(i)
        if len(places) == top or len(full) == len(rows):
            break
    return places, fields


def shared(a: Field, b: Field) -> float:
    """The part of the smaller box that lies in the other one.

    >>> shared((0, 0, 4, 4), (2, 0, 6, 4))
    0.5
    """
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((f[2] - f[0]) * (f[3] - f[1]) for f in (a, b))
    return max(wide, 0) * max(high, 0) / smaller


def _quarter_of_picture(inside: FeatureContext) -> float:
    height, width = inside.model.preprocess.size
    return 0.25 * height * width
