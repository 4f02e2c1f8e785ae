"""Bolya, Foley, Hays & Hoffman 2020 (TIDE), arXiv:2008.08115, section 2."""

from __future__ import annotations

import numpy as np

from clearsight.auditing.box_outcomes import close_up, detection_evidence
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.evidence import bounds, points, share, span, table
from clearsight.auditing.place_evidence import evidence_of
from clearsight.core.catalogue import method
from clearsight.core.statistics import Interval, judge
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.evaluation.error_intervals import error_intervals
from clearsight.evaluation.error_types import TYPES, ErrorTypes, JudgedErrors, error_types, judged_errors
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding

_OF_EACH = 3  # pictures of each type
_MEANING = {
    "class": "the right place, another class",
    "place": "the right class, an IoU from 0.1 to 0.5",
    "both": "another class, and an IoU below 0.5",
    "duplicate": "a second box on an object that has one",
    "background": "an IoU of at most 0.1 with every object",
    "missed": "an object that no box could be mended to find",
}


def _validate(case: DetectorCase, *, ceiling: float, score: float) -> None:
    if not 0 <= ceiling <= 1 or not 0 <= score <= 1:
        raise Refused(f"detection-errors(ceiling={ceiling:g}, score={score:g}): shares from 0 to 1")


@method(
    paper="arXiv:2008.08115",
    order=2,
    validate=_validate,
    advice="look at the costliest type of error first, the top row of its table",
)
def detection_errors(case: DetectorCase, *, ceiling: float = 0.1, score: float = 0.3) -> Finding:
    """Which kind of error costs most: class, place, both, a duplicate, background, or a missed object?

    Value: how much AP50 would rise if an oracle mended the costliest of the six types alone, 0 to 1, with a bootstrap
    over pictures.  The rises of the types do not add up to what is missing, because one error can hide another.

    pass: the whole interval lies at or below ceiling.  fail: all of it lies above.  warn: the pictures are too few to
    say.

    Args:
        ceiling: largest cost of one type that is accepted, in AP50 from 0 to 1.
        score: lowest score of the boxes in the gallery, 0 to 1; the costs count every box that is reported.

    Refused: a ceiling or a score outside of 0 to 1.

    Source: Bolya et al. 2020 (TIDE), foreground IoU 0.5, background IoU 0.1.
    """
    boxes = case.boxes
    errors = error_types(boxes)
    if errors.ap is None:
        return Finding("note", f"None of the {case.counted(boxes.pictures)} shows an object that could be found.")
    intervals = error_intervals(boxes, case.seed)
    costs = {name: cost or 0.0 for name, cost in errors.costs.items()}
    order = sorted(costs, key=lambda name: -costs[name])
    worst, n = order[0], boxes.pictures
    value, interval = costs[worst], intervals[worst]
    return Finding(
        judge(interval, ceiling=ceiling),
        f"The costliest errors are of the type {worst} ({_MEANING[worst]}): without them AP50 would be "
        f"{points(value)} points above its {share(errors.ap)} ({span(interval, n)}).",
        quantity=f"AP50 lost to {worst}",
        value=value,
        interval=interval,
        n=n,
        has_bar=True,
        notes=(
            f"Asked for: at most {share(ceiling)} lost to one type (option ceiling).",
            "Every box that is reported counts in the costs, also those with low scores, which cost little; the "
            f"gallery shows the surest boxes from a score of {score:g} on (option score), and the largest missed "
            "objects.",
            "The costs do not add up to what AP50 lacks: one error can hide another.",
        ),
        tables=table("Types of error, the costliest first", _rows(errors, costs, order, intervals)),
        figures=(_figure(costs, order),),
        evidence=_evidence(case, judged_errors(boxes, 0.5, 0.1), order, score),
    )


def _rows(
    errors: ErrorTypes, costs: dict[str, float], order: list[str], intervals: dict[str, Interval | None]
) -> list[dict[str, Cell]]:
    return [
        {
            "type": name,
            "what it is": _MEANING[name],
            "errors": errors.counts[name],
            "AP50 lost": costs[name],
            **bounds(intervals[name]),
        }
        for name in order
    ]


def _figure(costs: dict[str, float], order: list[str]) -> Figure:
    data = charts.dots(
        [charts.Dot(name, costs[name], 0.0) for name in order],
        xlabel="rise of AP50 if errors of this type alone were mended",
        value="its cost",
        chance="none",
    )
    words = ", ".join(f"{name} {share(costs[name])}" for name in order)
    return Figure("detection-errors.svg", data, "What each type of error costs.", f"AP50 lost by type: {words}.")


def _evidence(case: DetectorCase, of: JudgedErrors, order: list[str], score: float) -> tuple[Evidence, ...]:
    """The surest errors of each type, the costliest type first; of missed objects the largest."""
    evidence: list[Evidence] = []
    for name in order:
        evidence += _missed(case, of) if name == "missed" else _wrong(case, of, name, score)
    return tuple(evidence)


def _wrong(case: DetectorCase, of: JudgedErrors, name: str, score: float) -> list[Evidence]:
    boxes = case.boxes
    at = np.flatnonzero((of.kind == TYPES.index(name)) & (boxes.scores >= score))
    at = at[np.argsort(-boxes.scores[at], kind="stable")][:_OF_EACH]
    evidence = []
    for n, i in enumerate(at.tolist(), 1):
        label, true = case.model.name(int(boxes.labels[i])), int(of.object_of[i])
        truth = None if true < 0 else case.model.name(int(boxes.truth_labels[true]))
        facts: dict[str, Cell] = {"type": name, "said": label, "score": float(boxes.scores[i]), "object": truth}
        caption = f"{name}: said {label} with {boxes.scores[i]:.2f}"
        caption += f", where {truth} is" if truth else ""
        figure = f"detection-errors-{name}-{n}"
        evidence.append(
            detection_evidence(case, "detection-errors", figure, i, boxes, caption, facts, None if true < 0 else true)
        )
    return evidence


def _missed(case: DetectorCase, of: JudgedErrors) -> list[Evidence]:
    boxes = case.boxes
    at = np.flatnonzero(of.missed)
    at = at[np.argsort(-boxes.area[at], kind="stable")][:_OF_EACH]
    evidence = []
    for n, i in enumerate(at.tolist(), 1):
        row, label = int(boxes.truth_picture[i]), case.model.name(int(boxes.truth_labels[i]))
        image = close_up(case, row, None, boxes.truth_boxes[i].tolist(), "")
        facts: dict[str, Cell] = {"type": "missed", "said": None, "score": None, "object": label}
        side = f"{boxes.area[i] ** 0.5:.0f}"
        caption = f"missed: {label}, {counted(int(side), 'pixel')} wide and high on average"
        evidence.append(
            evidence_of(case, row, f"detection-errors-missed-{n}", image, caption, facts, "detection-errors")
        )
    return evidence
