"""Comparison of runs of detectors, or of segmenters, on the same pictures with the same boxes or class maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clearsight.auditing.box_outcomes import SCORE
from clearsight.auditing.evidence import table
from clearsight.comparing.class_order import in_one_order
from clearsight.comparing.gain_rows import gain_cells
from clearsight.comparing.object_fates import object_fates
from clearsight.comparing.one_of_several import judged_runs
from clearsight.comparing.paired_audits import CHECKS, compare_audits
from clearsight.comparing.paired_detectors import compare_detectors
from clearsight.comparing.paired_segmenters import compare_segmenters
from clearsight.comparing.place_runs import (
    PlaceAnswers,
    PlaceRun,
    judge_places,
    refuse_other_classes,
    refuse_other_pictures,
)
from clearsight.comparing.sources import RunToCompare
from clearsight.comparing.summary import (
    CheckFindings,
    Reports,
    audit_notes,
    by_check,
    common_rows,
    run_row,
    summarise_check,
    values_of_check,
)
from clearsight.core.catalogue import Call
from clearsight.core.progress import Progress
from clearsight.core.text import counted
from clearsight.data.records import Pictures
from clearsight.errors import Refused
from clearsight.evaluation.paired_boxes import box_gains
from clearsight.evaluation.paired_pixels import pixel_gains
from clearsight.reporting.findings import Cell, Finding, Table
from clearsight.reporting.report import Report
from clearsight.reporting.spread import between


def compare_places(
    kind: str,
    compared: Sequence[RunToCompare],
    pictures: Pictures | None,
    calls: Sequence[Call],
    *,
    asked: bool,
    pair: bool,
    method: str,
    notes: Sequence[str],
    seed: int,
    tell: Progress,
) -> tuple[tuple[Finding, ...], Reports]:
    """The findings on all runs, and the report of each.

    Args:
        kind: "detector" or "segmenter".
        compared: the runs.
        pictures: with which models are judged; None where all are audits.
        calls: the checks.
        asked: whether the checks were named, so that audits keep the findings of these alone.
        pair: whether the first is the state before a repair and the second that after it.
        method: explainer of the checks, of which no check of these kinds has one.
        notes: sentences on what was left out.
        seed: start of all randomness.
        tell: progress.

    Refused: an explainer, other classes, and other pictures or truth.
    """
    if method != "auto":
        raise Refused(f"no check of a {kind} uses an explainer, such as {method}: leave it out")
    compared, order = in_one_order(compared)

    def judge(run: RunToCompare, progress: Progress) -> tuple[Report, PlaceAnswers]:
        assert pictures is not None
        return judge_places(run, pictures, calls, seed, progress)

    runs: list[PlaceRun] = []
    for run in judged_runs(compared, calls if asked else None, judge, tell):
        runs.append(run)
        refuse_other_classes(runs)
        refuse_other_pictures(runs)
    reports = [(r.name, r.report) for r in runs]
    findings_by_check = by_check(reports)
    over_runs = [summarise_check(spelled, of) for spelled, of in findings_by_check.items()]
    beside = () if pair else table(f"Beside {runs[0].name}, on the same pictures", _beside_first(runs, calls, seed))
    first = _side_by_side(kind, compared, reports, findings_by_check, (*notes, *order), beside)
    if not pair:
        return (first, *over_runs), reports
    repair = _repair(kind, runs, pictures, calls, seed)
    ordered = (repair, first) if repair.value is not None else (first, repair)
    return (*ordered, *over_runs), reports


def _repair(
    kind: str, runs: Sequence[PlaceRun], pictures: Pictures | None, calls: Sequence[Call], seed: int
) -> Finding:
    before, after = runs
    if pictures is None or before.answers is None or after.answers is None:
        return compare_audits(before, after, kind, seed)
    if kind == "detector":
        return compare_detectors(before, after, pictures, score=_score(calls), seed=seed)
    return compare_segmenters(before, after, pictures, seed=seed)


def _score(calls: Sequence[Call]) -> float:
    """From which score on a box counts: that of the check, where it was asked for with one."""
    options = [c.options for c in calls if c.method.name == "detection-accuracy"]
    return float(options[0].get("score", SCORE)) if options else SCORE


def _beside_first(runs: Sequence[PlaceRun], calls: Sequence[Call], seed: int) -> list[dict[str, Cell]]:
    """A row for each run after the first: what it gained over that, on the same pictures."""
    first = runs[0].answers
    rows: list[dict[str, Cell]] = []
    for run in runs[1:]:
        other = run.answers
        if first is None or other is None:
            continue
        if first.boxes is not None and other.boxes is not None:
            fates = object_fates(first.boxes, other.boxes, _score(calls))
            counts = {"mended": int(fates.mended.sum()), "broken": int(fates.broken.sum())}
            rows.append(
                {"run": run.name, **counts, **gain_cells(box_gains(first.boxes, other.boxes, seed).ap50, "AP50")}
            )
        elif first.pixels is not None and other.pixels is not None:
            gains = pixel_gains(first.pixels, other.pixels, seed)
            rows.append({"run": run.name, **gain_cells(gains.means["mean_iou"], "mean IoU")})
    return rows


def _side_by_side(
    kind: str,
    compared: Sequence[RunToCompare],
    reports: Reports,
    findings_by_check: Mapping[str, CheckFindings],
    notes: Sequence[str],
    beside: tuple[Table, ...],
) -> Finding:
    """The runs side by side, what they have in common, and a sentence on all of them."""
    values = values_of_check(findings_by_check, CHECKS[kind])
    if values:
        score, n = values[0][1].quantity, max(f.n for _, f, _ in values)
        spread = between([v for _, _, v in values], "share")
        score = f"{score[0].upper()}{score[1:]}"
        sentence = f"{score} of {counted(len(compared), kind)}: {spread} on {counted(n, 'picture')}."
    else:
        sentence = f"How good the {counted(len(compared), kind)} are is not known."
    return Finding(
        "note",
        sentence,
        notes=(*notes, *audit_notes(reports)),
        tables=(
            Table("What the runs have in common", tuple(common_rows(compared, reports))),
            Table("By run", tuple(run_row(name, findings_by_check) for name, _ in reports)),
            *beside,
        ),
        check="runs",
        summary="What do the runs have in common, and how much do they differ?",
        seconds=round(sum(r.facts.seconds for _, r in reports), 3),
    )
