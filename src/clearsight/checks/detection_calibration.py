"""Küppers, Kronenberger, Shantia & Haselhoff 2020, arXiv:2004.13546; LaECE by Oksuz, Joy & Dokania 2023."""

from __future__ import annotations

import numpy as np

from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.evidence import bounds, share, span, table
from clearsight.checks.calibration import allowed_ece, verdict_of
from clearsight.core.calibration_error import bin_of, ece
from clearsight.core.catalogue import method
from clearsight.core.statistics import FEWEST, Interval, tails, wilson
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.evaluation.box_calibration import BoxCalibration, box_calibration
from clearsight.evaluation.matching import match
from clearsight.evaluation.records import Numbers, Whole
from clearsight.reporting.findings import Cell, Figure, Finding

_DRAWS = 1000


def _validate(case: DetectorCase, *, bins: int, ceiling: float, iou: float, score: float) -> None:
    if bins < 1:
        raise Refused(f"detection-calibration(bins={bins}): at least one bin")
    if not 0 <= ceiling <= 1 or not 0 <= score < 1 or not 0 < iou <= 1:
        raise Refused(f"detection-calibration(ceiling={ceiling:g}, iou={iou:g}, score={score:g}): shares from 0 to 1")


@method(
    paper="arXiv:2004.13546",
    order=3,
    validate=_validate,
    advice="fit a temperature on held-out pictures before its scores are read as probabilities",
)
def detection_calibration(
    case: DetectorCase, *, bins: int = 10, ceiling: float = 0.1, iou: float = 0.5, score: float = 0.3
) -> Finding:
    """When the detector gives a box a score of 0.8, are 80 % of such boxes right?

    Value: the detection calibration error (D-ECE), 0 to 1, which is the gap between the mean score and the share of
    right boxes, averaged over bins of scores and weighted by their boxes.  The interval is a basic bootstrap over
    pictures.  Chance is what a perfectly calibrated detector with the same scores would show.  Beside it stand LaECE,
    which asks the score to be the box's IoU, and the recall: a detector that keeps its few sure boxes looks
    calibrated and misses most objects.

    pass: the whole interval lies at or below ceiling.  fail: the value is beyond the 97.5 % quantile of what a
    detector would show whose scores are off by just ceiling.  warn: else, undecided with these pictures.

    Args:
        bins: number of bins of equal width from 0 to 1, at least 1.
        ceiling: largest calibration error that is accepted, 0 to 1.
        iou: IoU with an object of its class from which on a box is right, above 0, at most 1.
        score: lowest score of a box that counts, from 0 to below 1.

    Refused: fewer than one bin, and shares outside their ranges.

    Source: Küppers et al. 2020; LaECE: Oksuz et al. 2023, arXiv:2307.00934.
    """
    found = box_calibration(case.boxes, score, iou, bins)
    n = case.boxes.pictures
    if found.d_ece is None:
        return Finding("note", f"No box in {case.counted(n)} has a score of {score:g} or more.")
    scores, right, picture = _judged(case, score, iou)
    interval = _interval(scores, right, picture, n, bins, found.d_ece, case.seed)
    perfect = _perfect(scores, bins, case.seed)
    mean, precision = float(scores.mean()), float(right.mean())
    side = "over" if mean > precision else "under"
    if share(mean) == share(precision):
        side = "neither over- nor under"
    return Finding(
        verdict_of(found.d_ece, interval, allowed_ece(scores, right, bins, ceiling, case.seed), ceiling),
        f"Scores and precision are {share(found.d_ece)} apart on average (D-ECE, {counted(bins, 'bin')}; "
        f"{span(interval, n)}), where perfect scores would show {share(perfect)}: {side}-confident with a mean score "
        f"of {share(mean)} at a precision of {share(precision)}; recall is {share(found.recall)}.",
        quantity="calibration error (D-ECE)",
        value=found.d_ece,
        interval=interval,
        n=n,
        chance=perfect,
        has_bar=True,
        notes=(
            f"Asked for: at most {share(ceiling)} (option ceiling).",
            f"It counts the {counted(found.detections, 'box', 'boxes')} with a score of {score:g} or more (option "
            f"score); one is right from an IoU of {iou:g} on with an object of its class that no better one has "
            "(option iou).",
            "Missed objects do not enter it, so it is to be read beside the recall.",
        ),
        tables=(
            *table("Measures of calibration", _measures(found, interval, perfect)),
            *table("LaECE by class", _class_rows(case, found)),
            *table(f"The {bins} bins of equal width, those with boxes", _bin_rows(found)),
        ),
        figures=(_figure(found, bins),),
    )


def _judged(case: DetectorCase, score: float, iou: float) -> tuple[Numbers, Numbers, Whole]:
    """The score of each box that counts, whether it is right, and its picture."""
    kept = case.boxes.above(score)
    matches = match(kept, [iou])
    counts = matches.judged & ~matches.ignored[0]
    return kept.scores[counts], matches.is_right()[0][counts].astype(np.float64), kept.picture[counts]


def _interval(
    scores: Numbers, right: Numbers, picture: Whole, pictures: int, bins: int, value: float, seed: int
) -> Interval | None:
    """The basic bootstrap over pictures: draws are biased upwards as the value is, so the tails are turned around."""
    if pictures < FEWEST:
        return None
    gaps = np.zeros((pictures, bins))
    np.add.at(gaps, (picture, bin_of(scores, bins)), right - scores)
    counts = np.bincount(picture, minlength=pictures).astype(np.float64)
    times = np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), _DRAWS)
    totals = times @ counts
    errors = (np.abs(times @ gaps).sum(1) / np.maximum(totals, 1))[totals > 0]
    low, high = np.percentile(errors, tails(pictures))
    return min(max(0.0, 2 * value - float(high)), value), min(1.0, max(2 * value - float(low), value))


def _perfect(scores: Numbers, bins: int, seed: int) -> float:
    """The D-ECE of boxes that are right exactly as often as their scores say, the mean of seeded draws."""
    rng = np.random.default_rng(seed)
    draws = 200
    return float(
        np.mean([ece(scores, (rng.random(len(scores)) < scores).astype(np.float64), bins) for _ in range(draws)])
    )


def _measures(found: BoxCalibration, interval: Interval | None, perfect: float) -> list[dict[str, Cell]]:
    rows: list[tuple[str, float | None, Interval | None, int]] = [
        ("D-ECE", found.d_ece, interval, found.detections),
        ("D-ECE of perfect scores, mean", perfect, None, found.detections),
        ("LaECE, mean over classes", found.la_ece, None, found.detections),
        ("precision", found.precision, _share_interval(found.precision, found.detections), found.detections),
        ("recall", found.recall, _share_interval(found.recall, found.truths), found.truths),
    ]
    return [{"measure": name, "value": value, **bounds(between), "n": n} for name, value, between, n in rows]


def _share_interval(value: float | None, n: int) -> Interval | None:
    return None if value is None else wilson(round(value * n), n)


def _class_rows(case: DetectorCase, found: BoxCalibration) -> list[dict[str, Cell]]:
    rows = [(case.model.name(label), value) for label, value in found.la_ece_by_class.items() if value is not None]
    return [{"class": name, "LaECE": value} for name, value in sorted(rows, key=lambda row: (-row[1], row[0]))]


def _bin_rows(found: BoxCalibration) -> list[dict[str, Cell]]:
    return [
        {
            "above": b.low,
            "up to": b.high,
            "boxes": b.detections,
            "mean score": b.score,
            "precision": b.precision,
            **bounds(_share_interval(b.precision, b.detections)),
        }
        for b in found.bins
        if b.detections
    ]


def _figure(found: BoxCalibration, bins: int) -> Figure:
    inside = found.bins
    data = charts.reliability(
        [k / bins for k in range(bins + 1)],
        [b.detections for b in inside],
        [b.score or 0.0 for b in inside],
        [b.precision or 0.0 for b in inside],
        [_share_interval(b.precision, b.detections) or (0.0, 1.0) for b in inside],
    )
    caption = "The share of right boxes beside their score; above the bars how many boxes."
    words = ", ".join(f"{b.score or 0:.2f}: {share(b.precision)}" for b in inside if b.detections)
    return Figure("detection-calibration.svg", data, caption, f"Precision by mean score: {words}.")
