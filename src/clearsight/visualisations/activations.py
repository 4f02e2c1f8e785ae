"""Zeiler & Fergus 2014, arXiv:1311.2901, section 4: what a layer's strongest channels respond to in a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from clearsight.core.catalogue import method
from clearsight.core.text import counted
from clearsight.drawing.heatmaps import photo
from clearsight.errors import Refused
from clearsight.feature_report.report import FeatureContext
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Cell
from clearsight.reporting.pages import Block, Page, Shown, layer_page, unit_page
from clearsight.visualisations.common.counts import at_least
from clearsight.visualisations.common.thumbnails import MAP_SCALE, over, small


@method(paper="arXiv:1311.2901", order=1)
def activations(inside: FeatureContext, *, pictures: int = 3, channels: int = 6) -> Iterator[Page]:
    """The strongest channels of a layer for some pictures, each as a small map on its own scale.

    The maps show what the layer gives, (h, w) for each channel, enlarged to the picture.  Channels are ordered by their
    highest activation before the layer's last squashing, so that a ReLU6 that is full does not hide the order.

    Args:
        pictures: number of pictures, drawn by seed; at least 1.
        channels: number of channels of each picture, those with the highest activation in it; at least 1.

    Refused: layers without places, and options below 1.
    """
    at_least(pictures=pictures, channels=channels)
    rows = inside.case.sample(range(len(inside.pictures)), pictures)
    for layer in inside.every_layer():
        blocks = []
        for part, x, caught in inside.passes(layer, rows):
            if not caught.maps:
                raise Refused(f"layer {layer} has no places: activations are drawn for feature maps")
            peaks = caught.preactivation.flatten(2).amax(2).float().cpu()
            for i, row in enumerate(part):
                units = peaks[i].argsort(descending=True, stable=True)[:channels].tolist()
                name = inside.name(row)
                shown = [Shown(name, figure(name, small(photo(x[i].cpu())), f"The picture {name}"))]
                for u in units:
                    a = caught.out[i, u].float().cpu()
                    facts: dict[str, Cell] = {"lowest": float(a.min()), "highest": float(a.max())}
                    if float(peaks[i, u]) > float(a.max()):
                        facts["before squashing"] = float(peaks[i, u])
                    drawn = figure(f"{name}-{u}", over(x[i], a), f"Where unit {u} is active in {name}")
                    shown.append(Shown(f"unit {u}", drawn, facts, unit_page(layer, u)))
                k, h, w = caught.out.shape[1:]
                words = (
                    f"The {len(units)} strongest of {counted(k, 'unit')} in {name} ({inside.describe(row)}), maps of "
                    f"{h} × {w} places."
                )
                blocks.append(Block(f"Strongest channels: {name}", words, tuple(shown), small=True, layer=layer))
        scale = (
            MAP_SCALE,
            "Orange is an activation above zero, purple one below zero; nothing is drawn where the unit is silent.",
        )
        few = (f"The budget allowed {len(blocks)} of {len(rows)} pictures.",) if len(blocks) < len(rows) else ()
        blocks[0] = replace(blocks[0], notes=(*scale, *few))
        yield Page(layer_page(layer), layer, tuple(blocks))
