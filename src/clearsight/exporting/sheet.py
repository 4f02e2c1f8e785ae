"""The parity sheet: what was compared between a model and its file, as a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from clearsight.auditing.assemble import make
from clearsight.auditing.case import Case
from clearsight.core.calibration_error import ece
from clearsight.core.statistics import bootstrap, judge, mcnemar, paired_gap, wilson
from clearsight.core.text import counted
from clearsight.exporting.parity import Parity, hits, same_answers, worst
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
from clearsight.reporting.wording import p_value, show, signed_points

AGREE = {"fp32": 0.999, "fp16": 0.99, "int8": 0.99}  # of the pictures must get the same answer
APART = {"fp32": 0.02}  # a probability may differ by so much; rounding of the pixels alone moves it by some thousandths
MAPS = {"fp32": 0.99, "fp16": 0.99, "int8": 0.9}  # rank correlation
_BINS = 15
_LOSS = 0.01  # of accuracy
_BATCH = 1e-3  # between a picture alone and among others


def bars(case: Case, compared: Compared[Parity], agree: float) -> list[BarResult]:
    """What must hold: the share of same answers, and in float32 the largest difference of a probability."""
    same = same_answers(case.model, compared.parity.before, compared.parity.after)
    share, apart = float(same.mean()), float(compared.parity.apart.max())
    found = [BarResult("agreement", f"at least {show(agree, 'share')}", show(share, "share"), share >= agree)]
    if compared.precision in APART and case.model.scores != "values":
        most = APART[compared.precision]
        held = apart <= most
        found.append(BarResult("largest difference of a probability", f"at most {most}", show(apart, ""), held))
    return found


def sheet(case: Case, compared: Compared[Parity], agree: float, *, seconds: float, command: str) -> ExportReport:
    """The report, with its findings in the order in which they are read."""
    checks = [
        _agreement(case, compared, agree),
        _accuracy(case, compared),
        _calibration(case, compared),
        _probabilities(case, compared),
        _maps(compared),
        pixels_finding(compared),
        precision_finding(compared),
        speed_finding(case, compared),
        layers_finding(compared),
        _int8(compared),
    ]
    findings = [f for f in checks if f is not None]
    report = make(case, findings, seconds=seconds, command=command, gate=bars(case, compared, agree))
    return ExportReport(report.facts, tuple(dataclasses.replace(f, command="") for f in report.findings))


def _agreement(case: Case, c: Compared[Parity], agree: float) -> Finding:
    same = same_answers(case.model, c.parity.before, c.parity.after)
    n, count = len(same), int(same.sum())
    kind = {"multi-label": "labels", "values": "values"}.get(case.model.scores, "top class")
    verdict: Verdict = "pass" if count / n >= agree else "fail"
    notes = [
        f"Held against {show(agree, 'share')} (--agree): of these very pictures, since both saw the same ones. The "
        "interval says what other pictures of the kind would give."
    ]
    if c.calibrated_on_these:
        notes.append("The file was calibrated on these pictures, so its numbers are optimistic: give --calibrate too.")
    changed = [int(i) for i in np.flatnonzero(~same)]
    return Finding(
        verdict,
        f"The file and the model give the same {kind} on {count} of {counted(n, 'picture')}.",
        quantity="same answer",
        value=count / n,
        interval=wilson(count, n),
        n=n,
        has_bar=True,
        notes=tuple(notes),
        tables=(Table("Pictures with another answer", tuple(_row(case, c, i) for i in changed[:100])),)
        if changed
        else (),
        check="agreement",
        summary="How often do the file and the model answer the same?",
        advice="look at the layer that disagrees first, below; then leave it in float, or calibrate on more pictures",
    )


def _row(case: Case, c: Compared[Parity], i: int) -> dict[str, Cell]:
    before, after = c.parity.before[i], c.parity.after[i]
    a, b = int(before.argmax()), int(after.argmax())
    return {
        "picture": case.pictures[i].name,
        "model": case.model.name(a),
        "its value": float(before[a]),
        "file": case.model.name(b),
        "its value in the file": float(after[b]),
        "largest difference": float(c.parity.apart[i]),
    }


def _accuracy(case: Case, c: Compared[Parity]) -> Finding | None:
    if not case.labelled or not case.model.one_of_many:
        return None
    before, after = hits(case, c.parity.before), hits(case, c.parity.after)
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    gained, lost = int((~before & after).sum()), int((before & ~after).sum())
    interval = paired_gap(both, gained, lost, neither)
    gap = float(after.mean() - before.mean())
    return Finding(
        judge(interval, floor=-_LOSS) if gained + lost else "pass",
        f"Accuracy goes from {show(float(before.mean()), 'share')} to {show(float(after.mean()), 'share')} "
        f"({signed_points(gap)} points; {gained} gained, {lost} lost, McNemar p {p_value(mcnemar(gained, lost))}).",
        quantity="change of accuracy",
        value=gap,
        interval=interval,
        n=len(before),
        has_bar=True,
        notes=(f"Held against a loss of {show(_LOSS, 'share')}.",),
        check="accuracy",
        summary="How much accuracy does the file lose on the same pictures?",
    )


def _calibration(case: Case, c: Compared[Parity]) -> Finding | None:
    if not case.labelled or not case.model.one_of_many:
        return None
    rows = case.labelled
    values = []
    for chances in (c.parity.before, c.parity.after):
        sure = chances[rows].double().amax(1).numpy()
        values.append(ece(sure, hits(case, chances).astype(np.float64), _BINS))
    return Finding(
        "note",
        f"The calibration error (ECE, {_BINS} bins) goes from {show(values[0], 'share')} to "
        f"{show(values[1], 'share')}.",
        quantity="change of ECE",
        value=values[1] - values[0],
        n=len(rows),
        check="calibration",
        summary="Are the file's probabilities as honest as the model's?",
    )


def _probabilities(case: Case, c: Compared[Parity]) -> Finding:
    apart = c.parity.apart
    value = float(apart.max())
    what = "value" if case.model.scores == "values" else "probability"
    bar = None if case.model.scores == "values" else APART.get(c.precision)
    verdict: Verdict = "note"
    if bar is not None:
        verdict = "pass" if value <= bar else "fail"
    batch = c.parity.batch
    among = f"The same picture alone and among others differs by {show(batch, '')}."
    if batch > _BATCH:
        verdict, among = "fail", among + " What else is in a batch must not matter."
    rows = tuple(_row(case, c, i) for i in worst(c.parity))
    return Finding(
        verdict,
        f"The largest difference of a {what} is {show(value, '')}, the median over pictures "
        f"{show(float(apart.median()), '')}.",
        quantity="largest difference",
        value=value,
        n=len(apart),
        unit="",
        has_bar=bar is not None,
        notes=((f"Held against {bar}.",) if bar is not None else ()) + (among,),
        tables=(Table("Pictures that differ most", rows),),
        check="probabilities" if what == "probability" else "values",
        summary=f"How far apart are the {'values' if what == 'value' else 'probabilities'}?",
    )


def _maps(c: Compared[Parity]) -> Finding | None:
    r = c.parity.correlations
    if not len(r):
        return None
    interval, floor = bootstrap(r.tolist()), MAPS[c.precision]
    verdict = judge(interval, floor=floor)
    if interval is None and r.min() >= floor:
        verdict = "pass"
    return Finding(
        verdict,
        f"The file's heatmaps and the model's have a mean rank correlation of {r.mean():.4f}, at least {r.min():.4f}.",
        quantity="rank correlation of maps",
        value=float(r.mean()),
        interval=interval,
        n=len(r),
        unit="",
        has_bar=True,
        notes=(
            f"Held against {floor}. Both maps are of the file's top class, enlarged to the model's input.",
            "The first number is Spearman's, over all places of a map.",
        ),
        check="maps",
        summary="Do the file's heatmaps show the same places?",
    )


def _int8(c: Compared[Parity]) -> Finding | None:
    if c.int8 is None:
        return None
    chosen = c.int8
    kept = ", ".join(chosen.in_float) or "none"
    rows: list[dict[str, Cell]] = [
        {"layers in float": t.in_float, "agreement on the calibration pictures": t.agreement} for t in chosen.tries
    ]
    moved: Sequence[tuple[str, float]] = sorted(chosen.moved.items(), key=lambda pair: -pair[1])
    tables = [Table("What was tried", tuple(rows))]
    if moved:
        layers: tuple[dict[str, Cell], ...] = tuple(
            {"layer": k, "moves the logits by": v, "in float": k in chosen.in_float} for k, v in moved
        )
        tables.append(Table("Each layer alone in 8 bits, as a share of the norm of the logits", layers))
    whole = chosen.layers - len(chosen.in_float)
    return Finding(
        "note" if whole else "fail",
        f"{whole} of {chosen.layers} layers are in 8 bits, with {show(chosen.work, 'share')} of the multiply-adds; "
        f"in float: {kept}.",
        quantity="layers in float",
        value=float(len(chosen.in_float)),
        n=0,
        unit="",
        notes=(
            "Weights have a scale for each output channel; activations one for each tensor, from the smallest and "
            "largest values that the calibration pictures gave. Weights are rounded so that their errors cancel over "
            "what the layer is given (GPTQ), and biases take up the mean error.",
            "Layers stay in float until at most half as many calibration pictures change as --agree allows.",
        ),
        tables=tuple(tables),
        check="quantisation",
        summary="Which layers are in 8 bits?",
    )
