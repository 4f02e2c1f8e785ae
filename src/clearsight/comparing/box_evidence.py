"""The pictures on which most objects were mended or broken, drawn before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from clearsight.auditing.box_outcomes import BoxOutcomes, input_boxes
from clearsight.auditing.detector_case import DetectorCase
from clearsight.comparing.object_fates import ObjectFates
from clearsight.comparing.place_runs import PlaceAnswers
from clearsight.core.text import counted
from clearsight.data.records import Pictures
from clearsight.drawing.box_picture import GREEN, GREY, ORANGE, PURPLE, BoxGroup, before_and_after
from clearsight.drawing.heatmaps import png
from clearsight.evaluation.matching import match
from clearsight.evaluation.records import Flags
from clearsight.kinds.detector import Detector
from clearsight.reporting.findings import Cell, Evidence, Figure

DRAWN = 6  # pictures with mended objects, and with broken ones
_COLOURS = {"kept": GREY, "mended": GREEN, "broken": ORANGE, "missed": GREY}  # colour for what changed
_LEGEND = {"kept": "found by both", "mended": "mended", "broken": "broken", "missed": "missed by both"}


def changed_pictures(fates: ObjectFates) -> dict[str, int]:
    """How many pictures have mended objects, and broken ones."""
    return {name: int((fates.by_picture(getattr(fates, name)) > 0).sum()) for name in ("mended", "broken")}


def drawn_rows(fates: ObjectFates, names: Sequence[str]) -> dict[str, list[int]]:
    """The rows that are drawn: those with the most mended objects, then of the others those with the most broken."""
    mended, broken = fates.by_picture(fates.mended), fates.by_picture(fates.broken)
    rows = range(len(names))
    first = sorted((i for i in rows if mended[i] > broken[i]), key=lambda i: (-mended[i], broken[i], names[i]))[:DRAWN]
    others = [i for i in rows if broken[i] and i not in first]
    return {"mended": first, "broken": sorted(others, key=lambda i: (-broken[i], mended[i], names[i]))[:DRAWN]}


def draw_boxes(
    before: PlaceAnswers,
    after: PlaceAnswers,
    fates: ObjectFates,
    drawn: Mapping[str, Sequence[int]],
    pictures: Pictures,
) -> tuple[Evidence, ...]:
    """Each drawn picture with the boxes of the first run, above it with those of the second.

    The picture is as the first run's input has it.
    """
    names = [before.pictures[i] for rows in drawn.values() for i in rows]
    if not names:
        return ()
    chosen = replace(pictures, pictures=tuple(p for p in pictures.pictures if p.name in names), broken=(), notes=())
    model = before.load()
    assert isinstance(model, Detector)
    case = DetectorCase(model, chosen)
    places = {p.name: n for n, p in enumerate(case.pictures)}
    outcomes = [(word, i) for word, rows in drawn.items() for i in rows]
    return tuple(_draw(case, places[before.pictures[i]], i, word, k, fates) for k, (word, i) in enumerate(outcomes, 1))


def _draw(case: DetectorCase, row: int, i: int, word: str, k: int, fates: ObjectFates) -> Evidence:
    """row: of the case; i: of the fates."""
    here = fates.before.boxes.truth_picture == i
    counts = {name: int((getattr(fates, name) & here).sum()) for name in _LEGEND}
    alarms = [int(of[i]) for of in fates.alarms()]
    first = _groups(case, row, i, fates, fates.before, found=("kept", "broken"))
    second = _groups(case, row, i, fates, fates.after, found=("kept", "mended"))
    entries = [(f"{_LEGEND[name]}: {n}", _COLOURS[name], name == "missed") for name, n in counts.items() if n]
    entries.append((f"false alarms: {alarms[0]}, then {alarms[1]}", PURPLE, False))
    image = before_and_after(case.pixels([row])[0], first, second, entries)
    name = case.pictures[row].name
    changes = f"{counted(counts['mended'], 'object')} mended, {counts['broken']} broken"
    caption = f"{changes}; above: before, below: after; dashed: not found"
    facts: dict[str, Cell] = {"mended": counts["mended"], "broken": counts["broken"], "objects": sum(counts.values())}
    facts |= {"false alarms before": alarms[0], "false alarms after": alarms[1]}
    figure = Figure(f"repair-{k}.png", png(image), caption, f"{name}: {caption}")
    return Evidence(name, figure, {"outcome": word, **facts}, "")


def _groups(
    case: DetectorCase, row: int, i: int, fates: ObjectFates, of: BoxOutcomes, found: Sequence[str]
) -> list[BoxGroup]:
    """What one run finds of each fate, the objects that it does not find, dashed, and its false alarms.

    found: the fates whose objects this run finds.
    """
    boxes = of.boxes
    truth = match(boxes, [0.5]).truth[0]
    here, true = boxes.picture == i, boxes.truth_picture == i
    groups = []
    for name, colour in _COLOURS.items():
        fate: Flags = getattr(fates, name)
        if name in found:
            sides = boxes.boxes[here & of.right & np.append(fate, False)[truth]]
            groups.append(BoxGroup(name, input_boxes(case, row, sides), colour))
            continue
        objects = true & fate
        words = [] if name == "missed" else [case.model.name(k) for k in boxes.truth_labels[objects].tolist()]
        groups.append(BoxGroup(name, input_boxes(case, row, boxes.truth_boxes[objects]), colour, True, words))
    wrong = here & of.wrong
    said = zip(boxes.labels[wrong].tolist(), boxes.scores[wrong].tolist(), strict=True)
    words = [f"{case.model.name(n)} {score:.2f}" for n, score in said]
    return [*groups, BoxGroup("false alarm", input_boxes(case, row, boxes.boxes[wrong]), PURPLE, words=words)]
