"""The parity sheet of detectors and segmenters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from clearsight.auditing.assemble import make
from clearsight.auditing.place_case import PlaceCase
from clearsight.core.statistics import Interval, bootstrap, wilson
from clearsight.core.text import counted
from clearsight.evaluation.average_precision import average_precision
from clearsight.evaluation.paired_pixels import pixel_gains
from clearsight.evaluation.records import box_set
from clearsight.exporting.place_parity import NEAR, SAME, BoxParity, Numbers, PixelParity, PlaceParity
from clearsight.exporting.sheet_parts import (
    Compared,
    ExportReport,
    layers_finding,
    pixels_finding,
    precision_finding,
    speed_finding,
)
from clearsight.reporting.facts import BarResult
from clearsight.reporting.findings import Cell, Finding, Table, Verdict
from clearsight.reporting.wording import show, signed_points

PLACE_AGREE = {"fp32": 0.99, "fp16": 0.98}  # of boxes, or of pixels
PLACE_APART = {"fp32": {"detector": 0.02, "segmenter": 0.1}}  # a score, or a probability of a pixel
_BATCH = 1e-3
_LOSS = 0.01  # of AP50, or of mean IoU
_SHOWN = 8


def place_bars(case: PlaceCase, c: Compared[PlaceParity], agree: float) -> list[BarResult]:
    """What must hold: the share of same boxes or pixels, and in float32 the largest difference of a score."""
    share, apart = _share(c.parity), float(c.parity.scores.max())
    words = "none are reported" if share is None else show(share, "share")
    bar = f"at least {show(agree, 'share')}"
    found = [BarResult("agreement", bar, words, share is not None and share >= agree)]
    most = PLACE_APART.get(c.precision, {}).get(case.model.kind)
    if most is not None:
        word = _score_of(case)
        found.append(BarResult(f"largest difference of a {word}", f"at most {most}", show(apart, ""), apart <= most))
    return found


def place_sheet(
    case: PlaceCase, c: Compared[PlaceParity], agree: float, *, seconds: float, command: str
) -> ExportReport:
    """The report, with its findings in the order in which they are read."""
    checks = [
        _agreement(case, c, agree),
        _precision_of_boxes(c.parity),
        _iou_of_pixels(c.parity),
        _scores(case, c),
        pixels_finding(c),
        precision_finding(c),
        speed_finding(case, c),
        layers_finding(c),
    ]
    findings = [f for f in checks if f is not None]
    report = make(case, findings, seconds=seconds, command=command, gate=place_bars(case, c, agree))
    facts = dataclasses.replace(report.facts, not_judged=())  # it is of the checks of an audit
    return ExportReport(facts, tuple(dataclasses.replace(f, command="") for f in report.findings))


def _share(parity: PlaceParity) -> float | None:
    """The share of boxes, or of pixels, on which both agree; None where no box is reported."""
    if isinstance(parity, BoxParity):
        either = int(parity.either.sum())
        return int(parity.both.sum()) / either if either else None
    assert isinstance(parity, PixelParity)
    return float(parity.same.mean())


def _score_of(case: PlaceCase) -> str:
    return "score" if case.model.kind == "detector" else "probability"


def _agreement(case: PlaceCase, c: Compared[PlaceParity], agree: float) -> Finding:
    parity, share = c.parity, _share(c.parity)
    verdict: Verdict = "pass" if share is not None and share >= agree else "fail"
    notes = [
        f"Held against {show(agree, 'share')} (--agree): of these very pictures, since both saw the same ones. The "
        "interval says what other pictures of the kind would give."
    ]
    interval: Interval | None = None
    n = len(parity.scores)
    if isinstance(parity, BoxParity):
        both, n = int(parity.both.sum()), int(parity.either.sum())
        interval = wilson(both, n) if n else None
        words = f"Of {counted(n, 'box', 'boxes')} that the file or the model reports, both report {both}."
        notes.append(
            f"Two boxes are one where they have the same class and an IoU of at least {SAME}, or sides within "
            f"{NEAR} pixels. The interval takes each box by itself."
        )
        each: Numbers = (parity.either - parity.both).astype(np.float64)
        column = "boxes of one alone"
        if not n:
            words = "Neither the file nor the model reports a box in these pictures: nothing is proved."
    else:
        assert isinstance(parity, PixelParity)
        interval = bootstrap(parity.same.tolist())
        words = f"The file and the model name the same class on {show(float(share or 0), 'share')} of the pixels."
        notes.append("Pixels are those of the network's input. The interval draws pictures, not pixels.")
        each, column = 1 - parity.same, "share of pixels with another class"
    rows = _worst(case, each, column)
    return Finding(
        verdict,
        words,
        quantity="same answer",
        value=share,
        interval=interval,
        n=n,
        has_bar=True,
        notes=tuple(notes),
        tables=(Table("Pictures with other answers", rows),) if rows else (),
        check="agreement",
        summary="How often do the file and the model answer the same?",
        advice="look at the layer that disagrees first, below, and at the preprocessing",
    )


def _worst(case: PlaceCase, each: Numbers, column: str) -> tuple[dict[str, Cell], ...]:
    """The pictures with the largest values above 0."""
    order: Sequence[int] = [int(i) for i in np.argsort(-each, kind="stable")[:_SHOWN] if each[i] > 0]
    return tuple({"picture": case.pictures[i].name, column: float(each[i])} for i in order)


def _precision_of_boxes(parity: PlaceParity) -> Finding | None:
    if not isinstance(parity, BoxParity) or not parity.before or not any(len(p.truth_boxes) for p in parity.before):
        return None
    before, after = (average_precision(box_set(boxes)).mean.ap50 for boxes in (parity.before, parity.after))
    if before is None or after is None:
        return None
    gap = after - before
    return Finding(
        "pass" if gap >= -_LOSS else "fail",
        f"AP50 goes from {show(before, 'share')} to {show(after, 'share')} ({signed_points(gap)} points).",
        quantity="change of AP50",
        value=gap,
        n=len(parity.before),
        has_bar=True,
        notes=(f"Held against a loss of {show(_LOSS, 'share')}.",),
        check="average precision",
        summary="How much average precision does the file lose on the same pictures?",
    )


def _iou_of_pixels(parity: PlaceParity) -> Finding | None:
    if not isinstance(parity, PixelParity) or not len(parity.before):
        return None
    gain = pixel_gains(parity.before, parity.after).means["mean_iou"]
    if gain.value is None:  # no pixel is judged
        return None
    return Finding(
        "pass" if gain.value >= -_LOSS else "fail",
        f"Mean IoU with the truth goes from {show(gain.before, 'share')} to {show(gain.after, 'share')} "
        f"({signed_points(gain.value)} points).",
        quantity="change of mean IoU",
        value=gain.value,
        interval=gain.interval,
        n=len(parity.before),
        has_bar=True,
        notes=(
            f"Held against a loss of {show(_LOSS, 'share')}. The interval draws pictures, the same ones for both.",
            "Pixels are those of the network's input. IoU is of one table of all of them, its mean over the classes "
            "that the truth or an answer shows.",
        ),
        check="mean IoU",
        summary="How much of the overlap with the true pixels does the file lose on the same pictures?",
    )


def _scores(case: PlaceCase, c: Compared[PlaceParity]) -> Finding:
    parity, word = c.parity, _score_of(case)
    value, batch = float(parity.scores.max()), parity.batch
    bar = PLACE_APART.get(c.precision, {}).get(case.model.kind)
    verdict: Verdict = "note"
    if bar is not None:
        verdict = "pass" if value <= bar else "fail"
    among = f"An output for the same picture alone and among others differs by {show(batch, '')}."
    if batch > _BATCH:
        verdict, among = "fail", among + " What else is in a batch must not matter."
    words = f"The largest difference of a {word} is {show(value, '')}"
    if isinstance(parity, BoxParity):
        words += f", and of a side of a box {show(float(parity.corners.max()), '')} pixels of the network's input"
    notes = ["Scores are of all candidates, sides of those above the floor."] if isinstance(parity, BoxParity) else []
    return Finding(
        verdict,
        words + ".",
        quantity="largest difference",
        value=value,
        n=len(parity.scores),
        unit="",
        has_bar=bar is not None,
        notes=(*((f"Held against {bar}.",) if bar is not None else ()), *notes, among),
        tables=(Table("Pictures that differ most", _worst(case, parity.scores, "largest difference")),),
        check="scores" if isinstance(parity, BoxParity) else "probabilities",
        summary=f"How far apart are the {word}s?".replace("ys?", "ies?"),
    )
