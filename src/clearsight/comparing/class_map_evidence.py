"""The pictures whose IoU rose or fell most, with their class maps before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clearsight.auditing.segmenter_case import SegmenterCase
from clearsight.comparing.place_runs import PlaceAnswers
from clearsight.data.records import Pictures
from clearsight.drawing.class_maps import BROKEN, MENDED, WRONG, change_pictures, class_map_pictures, with_class_legend
from clearsight.drawing.heatmaps import png
from clearsight.kinds.questions import BACKGROUND
from clearsight.kinds.segmenter import Segmenter
from clearsight.reporting.findings import Cell, Evidence, Figure
from clearsight.reporting.wording import signed_points

DRAWN = 6  # pictures whose IoU rose, and fell
_CHANGED = (("mended", MENDED, False), ("broken", BROKEN, False))


def drawn_rows(change: NDArray[np.float64], names: Sequence[str]) -> dict[str, list[int]]:
    """The rows that are drawn: those whose IoU rose most, and those whose IoU fell most."""
    rows = range(len(names))
    rose = sorted((i for i in rows if change[i] > 0), key=lambda i: (-change[i], names[i]))
    fell = sorted((i for i in rows if change[i] < 0), key=lambda i: (change[i], names[i]))
    return {"rose": rose[:DRAWN], "fell": fell[:DRAWN]}


def draw_class_maps(
    before: PlaceAnswers,
    after: PlaceAnswers,
    drawn: Mapping[str, Sequence[int]],
    change: NDArray[np.float64],
    pictures: Pictures,
) -> tuple[Evidence, ...]:
    """Each drawn picture under its true classes and under those of both runs, and with what was mended and broken."""
    names = [before.pictures[i] for rows in drawn.values() for i in rows]
    if not names:
        return ()
    chosen = replace(pictures, pictures=tuple(p for p in pictures.pictures if p.name in names), broken=(), notes=())
    first, second = _case(before, chosen), _case(after, chosen)
    places = {p.name: n for n, p in enumerate(first.pictures)}
    outcomes = [(word, i) for word, rows in drawn.items() for i in rows]
    return tuple(
        _draw(first, second, places[before.pictures[i]], word, float(change[i]), k)
        for k, (word, i) in enumerate(outcomes, 1)
    )


def _case(run: PlaceAnswers, pictures: Pictures) -> SegmenterCase:
    model = run.load()
    assert isinstance(model, Segmenter)
    return SegmenterCase(model, pictures)


def _draw(before: SegmenterCase, after: SegmenterCase, row: int, word: str, change: float, k: int) -> Evidence:
    name, labels = before.pictures[row].name, [before.model.name(n) for n in range(len(before.model.labels))]
    ground = next((n for n, label in enumerate(before.model.labels) if label.strip().lower() in BACKGROUND), None)
    x, said, truth = _answer(before, row)
    other_x, said_after, other_truth = _answer(after, row)
    images: list[Image.Image]
    marked: tuple[tuple[str, str, bool], ...]
    if before.model.preprocess == after.model.preprocess:
        images, marked = change_pictures(x, said, said_after, truth, ground), _CHANGED
        order = "above: the truth, and what changed; below: before, and after"
    else:
        pairs = ((x, said, truth), (other_x, said_after, other_truth))
        images = [image for pair in pairs for image in class_map_pictures(*pair, ground)[1:]]
        marked = (("wrong", WRONG, False),)
        order = "above: before, and what is wrong; below: after, and what is wrong"
    image = with_class_legend(images, labels, [truth, said, said_after], ground, marked)
    caption = f"mean IoU of the picture {word} by {signed_points(abs(change)).lstrip('+')} points; {order}"
    facts: dict[str, Cell] = {"outcome": word, "difference": change}
    return Evidence(name, Figure(f"repair-{k}.png", png(image), caption, f"{name}: {caption}"), facts, "")


def _answer(case: SegmenterCase, row: int) -> tuple[Tensor, Tensor, Tensor]:
    x = case.pixels([row])
    return x[0], case.segment(x)[0], case.truth_of(case.pictures[row])
