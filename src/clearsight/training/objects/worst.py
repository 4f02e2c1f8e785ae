"""The worst pictures of the part that judges a trained detector or segmenter, by name and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from clearsight.auditing.box_outcomes import (
    SCORE,
    errors_in,
    facts_of_pictures,
    outcome_picture,
    outcomes,
    words_of,
    worst_first,
)
from clearsight.auditing.commands import Commands
from clearsight.auditing.evidence import share
from clearsight.auditing.pixel_outcomes import ground_of, pixel_facts
from clearsight.data.images import of_bytes
from clearsight.data.truth_to_input import map_to_input
from clearsight.drawing.class_maps import class_map_pictures, plain_picture, with_class_legend
from clearsight.drawing.heatmaps import png
from clearsight.evaluation.pixels import PixelCounts, iou_by_picture
from clearsight.evaluation.records import BoxSet
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.reporting.findings import Cell, Evidence, Figure, Table
from clearsight.training.batches import Store
from clearsight.training.objects.prepared import ObjectData

_DRAWN = 8
TITLE = "Pictures, the worst first"


def worst_of_boxes(
    model: Detector, boxes: BoxSet, data: ObjectData, store: Store, rows: Sequence[int]
) -> tuple[Table, tuple[Evidence, ...]]:
    """The pictures by how many objects are missed and boxes false alarms, and the worst of them drawn."""
    of = outcomes(boxes, SCORE)
    facts = facts_of_pictures([data.pictures[i].name for i in rows], of)
    order = worst_first(facts)
    drawn: list[Evidence] = []
    commands = Commands(model.source, str(data.data.root))
    for n in [n for n in order if errors_in(facts[n])][:_DRAWN]:
        truth = data.pictures[rows[n]].boxes
        assert truth is not None
        image = outcome_picture(of_bytes(store[rows[n]]), n, of, truth.size, model)
        name, command = f"detection-worst-{len(drawn) + 1}", commands.of_picture("explain", data.pictures[rows[n]])
        drawn.append(_evidence(name, image, words_of(facts[n]), facts[n], command))
    return Table(TITLE, tuple(facts[n] for n in order)), tuple(drawn)


def worst_of_pixels(
    model: Segmenter, counts: PixelCounts, data: ObjectData, store: Store, rows: Sequence[int]
) -> tuple[Table, tuple[Evidence, ...]]:
    """The pictures by their own mean IoU, and the worst of them drawn: the truth, the answer, and what is wrong."""
    by_picture = iou_by_picture(np.stack(counts.per_picture)).tolist()
    own = {n: iou for n, iou in enumerate(by_picture) if not math.isnan(iou)}
    names = [data.pictures[i].name for i in rows]
    facts = {n: pixel_facts(names[n], counts.per_picture[n], model.name) for n in own}
    order = sorted(own, key=lambda n: (own[n], names[n]))
    drawn: list[Evidence] = []
    commands = Commands(model.source, str(data.data.root))
    for n in [n for n in order if own[n] < 1][:_DRAWN]:
        image = _maps_of(model, data, store, rows[n])
        caption = f"above the truth and the answer, below what is wrong, and the picture; mean IoU {share(own[n])}"
        name, command = f"segmentation-worst-{len(drawn) + 1}", commands.of_picture("explain", data.pictures[rows[n]])
        drawn.append(_evidence(name, image, caption, facts[n], command))
    return Table(TITLE, tuple(facts[n] for n in order)), tuple(drawn)


def _maps_of(model: Segmenter, data: ObjectData, store: Store, row: int) -> Image.Image:
    pixels = data.pictures[row].pixels
    assert pixels is not None
    x = of_bytes(store[row])
    said, truth = model.segment(x[None])[0].cpu(), map_to_input(pixels(), model.preprocess)
    ground = ground_of(model.labels)
    labels = [model.name(k) for k in range(len(model.labels))]
    images = [*class_map_pictures(x, said, truth, ground), plain_picture(x)]
    return with_class_legend(images, labels, [said, truth], ground)


def _evidence(name: str, image: Image.Image, caption: str, facts: dict[str, Cell], command: str) -> Evidence:
    picture = str(facts["picture"])
    return Evidence(picture, Figure(f"{name}.png", png(image), caption, f"{picture}: {caption}"), facts, command)
