"""Lin et al. 2014, arXiv:1405.0312; https://cocodataset.org/#detection-eval."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from clearsight.auditing.box_outcomes import (
    BoxOutcomes,
    errors_in,
    facts_of_pictures,
    outcome_picture,
    outcomes,
    words_of,
    worst_first,
)
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.evidence import bounds, share, span, table
from clearsight.auditing.place_evidence import evidence_of
from clearsight.core.catalogue import method
from clearsight.core.statistics import judge
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.evaluation.average_precision import AveragePrecision, ClassPrecision, Precision, average_precision
from clearsight.evaluation.chance import dealt_at_random
from clearsight.evaluation.intervals import PrecisionIntervals, precision_intervals
from clearsight.evaluation.records import BoxSet
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding

_EVIDENCE = 12
_DEALT = 5  # times that the detections are dealt at random, for the mean
_CLASSES = 30  # rows of a chart that can be read


def _validate(case: DetectorCase, *, floor: float, score: float) -> None:
    if not 0 <= floor <= 1 or not 0 <= score <= 1:
        raise Refused(f"detection-accuracy(floor={floor:g}, score={score:g}): shares from 0 to 1")


@method(
    paper="arXiv:1405.0312",
    order=1,
    validate=_validate,
    advice="look at its worst pictures, and whether what it misses there is annotated as elsewhere",
)
def detection_accuracy(case: DetectorCase, *, floor: float = 0.5, score: float = 0.3) -> Finding:
    """How many of the objects are found, how many boxes are wrong, and in which pictures?

    Value: COCO's average precision at an IoU of 0.5 (AP50), the mean over classes with an object, 0 to 1.  Its interval
    is a bootstrap over pictures.  Chance: the same detections dealt to random pictures, a detector that knows what
    boxes look like and no picture.  Beside it stand AP over IoUs from 0.5 to 0.95, the average recall, and all of them
    by class.  Pictures are the worse the more objects are missed and the more boxes are false alarms in them, from a
    score on.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: the pictures are too few to
    say.

    Args:
        floor: AP50 that is asked for, 0 to 1.
        score: lowest score of a box that counts in the table and the drawings of pictures, 0 to 1.

    Refused: a floor or a score outside of 0 to 1.

    Source: Lin et al. 2014, as faster-coco-eval has it.
    """
    boxes = case.boxes
    precision = average_precision(boxes)
    value = precision.mean.ap50
    if value is None:
        return Finding("note", f"None of the {case.counted(boxes.pictures)} shows an object that could be found.")
    intervals = precision_intervals(boxes, case.seed)
    chance = _at_random(boxes, case.seed)
    of = outcomes(boxes, score)
    rows = facts_of_pictures([p.name for p in case.pictures], of)
    worst = worst_first(rows)
    return Finding(
        judge(intervals.ap50, floor=floor),
        f"AP50 is {share(value)} ({span(intervals.ap50, boxes.pictures)}) over "
        f"{counted(precision.truths, 'object')}, where boxes dealt at random would reach {share(chance.ap50)}; AP is "
        f"{share(precision.mean.ap)}.",
        quantity="AP50",
        value=value,
        interval=intervals.ap50,
        n=boxes.pictures,
        chance=chance.ap50,
        has_bar=True,
        notes=(f"Asked for: at least {share(floor)} (option floor).", *case.learned, *_notes(case, precision, score)),
        tables=(
            *table("How good the boxes are", _measure_rows(precision.mean, intervals, chance)),
            *table("By class, the worst first", _class_rows(case, precision, intervals)),
            *table("Pictures, the worst first", [rows[i] for i in worst]),
        ),
        figures=_figure(case, precision, _by_class_at_random(boxes, case.seed)),
        evidence=_evidence(case, of, [i for i in worst if errors_in(rows[i])][:_EVIDENCE], rows),
    )


def _at_random(boxes: BoxSet, seed: int) -> Precision:
    """The figures of detections dealt at random, means of several deals."""
    deals = [average_precision(dealt_at_random(boxes, seed + k)).mean for k in range(_DEALT)]

    def mean(name: str) -> float | None:
        values = [v for v in (getattr(deal, name) for deal in deals) if v is not None]
        return float(np.mean(values)) if values else None

    means: dict[str, Any] = {f.name: mean(f.name) for f in fields(Precision) if f.name != "ar_by_most"}
    return replace(deals[0], **means)


def _by_class_at_random(boxes: BoxSet, seed: int) -> list[float]:
    return [c.figures.ap50 or 0.0 for c in average_precision(dealt_at_random(boxes, seed)).by_class]


def _measure_rows(mean: Precision, intervals: PrecisionIntervals, chance: Precision) -> list[dict[str, Cell]]:
    measures = [
        ("AP50", "ap50", intervals.ap50),
        ("AP75", "ap75", intervals.ap75),
        ("AP, mean of IoU 0.5 to 0.95", "ap", intervals.ap),
        ("AR, the share found, mean of the same", "ar", None),
        ("AP of small objects (to 32 x 32 pixels)", "ap_small", None),
        ("AP of medium objects (to 96 x 96)", "ap_medium", None),
        ("AP of large objects", "ap_large", None),
    ]
    return [
        {"measure": words, "value": getattr(mean, name), **bounds(interval), "dealt at random": getattr(chance, name)}
        for words, name, interval in measures
    ]


def _class_rows(
    case: DetectorCase, precision: AveragePrecision, intervals: PrecisionIntervals
) -> list[dict[str, Cell]]:
    def place(c: ClassPrecision) -> tuple[bool, float, str]:
        return c.figures.ap50 is None, c.figures.ap50 or 0.0, case.model.name(c.label)

    return [
        {
            "class": case.model.name(c.label),
            "objects": c.truths,
            "detections": c.detections,
            "AP50": c.figures.ap50,
            **bounds(intervals.ap50_by_class[c.label]),
            "AP": c.figures.ap,
            "AR": c.figures.ar,
        }
        for c in sorted(precision.by_class, key=place)
    ]


def _notes(case: DetectorCase, precision: AveragePrecision, score: float) -> list[str]:
    boxes = case.boxes
    notes = [
        f"In the pictures and their table a box counts from a score of {score:g} on (option score), with an IoU of 0.5 "
        "or more with an object of its class; AP counts every box that the detector reports."
    ]
    empty = boxes.pictures - len(np.unique(boxes.truth_picture))
    without = f"{case.counted(empty, 'shows', 'show')} no object" if empty else "Every picture shows an object"
    notes.append(f"{without}.")
    if precision.crowds:
        notes.append(f"{counted(precision.crowds, 'object is', 'objects are')} a crowd or difficult, and not judged.")
    missing = [case.model.name(label) for label in precision.classes_without_truths]
    if missing:
        notes.append(
            f"No picture shows {', '.join(missing[:9])}{' and others' if len(missing) > 9 else ''}, so "
            f"{counted(precision.unseen_false_positives, 'false positive')} of that kind lower no mean."
        )
    unread = len(case.data.pictures) - case.tried
    if unread > 0:
        notes.append(f"The budget was used up before {case.counted(unread)} could be read.")
    return notes


def _figure(case: DetectorCase, precision: AveragePrecision, chance: list[float]) -> tuple[Figure, ...]:
    judged = [c for c in precision.by_class if c.figures.ap50 is not None]
    judged.sort(key=lambda c: (c.figures.ap50 or 0.0, case.model.name(c.label)))
    if not 2 <= len(judged) <= _CLASSES:
        return ()
    dots = [charts.Dot(case.model.name(c.label), c.figures.ap50 or 0.0, chance[c.label]) for c in judged]
    data = charts.dots(dots, xlabel="AP50", value="the detector", chance="its boxes dealt at random")
    caption = f"AP50 of each class beside that of boxes dealt at random, {case.counted(precision.pictures)}."
    words = ", ".join(f"{d.name} {share(d.value)}" for d in dots)
    return (Figure("detection-accuracy-classes.svg", data, caption, f"AP50 by class, the worst first: {words}."),)


def _evidence(
    case: DetectorCase, of: BoxOutcomes, worst: list[int], rows: list[dict[str, Cell]]
) -> tuple[Evidence, ...]:
    evidence = []
    for n, i in enumerate(worst, 1):
        truth = case.pictures[i].boxes
        assert truth is not None
        image = outcome_picture(case.pixels([i])[0], i, of, truth.size, case.model)
        name = f"detection-accuracy-worst-{n}"
        evidence.append(evidence_of(case, i, name, image, words_of(rows[i]), rows[i], "detection-accuracy"))
    return tuple(evidence)
