"""What changed from one audit to another of a detector or a segmenter: what their tables say picture by picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clearsight.auditing.evidence import share, table
from clearsight.comparing.gain_rows import cost_words, gain_rows, gain_words
from clearsight.comparing.object_fates import gain_of_mean, gain_of_ratio
from clearsight.comparing.place_runs import PlaceRun
from clearsight.comparing.repair import NAME, SUMMARY
from clearsight.evaluation.gains import Gain
from clearsight.evaluation.records import Numbers
from clearsight.reporting.findings import Cell, Finding, named_in
from clearsight.reporting.wording import show

CHECKS = {"detector": "detection-accuracy", "segmenter": "segmentation-accuracy"}
NEEDS_MODELS = (
    "An audit keeps counts of each picture, and neither boxes nor class maps. {why} For that interval, and for what "
    "was mended and broken, name the folders of the models with --data DATA."
)
WHY_NO_INTERVAL = {
    "detector": "AP50 orders the boxes of all pictures by their scores, so counts do not say what it would be on other "
    "draws of these pictures, and its difference has no interval.",
    "segmenter": "Mean IoU is of the pixels of each class in all pictures, so a picture's own mean does not say what "
    "it would be on other draws of these pictures, and its difference has no interval.",
}
Rows = Mapping[str, Mapping[str, Cell]]  # by picture


def compare_audits(before: PlaceRun, after: PlaceRun, kind: str, seed: int) -> Finding:
    """The gains that can be told from what two audits keep of each picture; without a value where there is none.

    Value: of detectors the share of objects found that was gained, of segmenters the mean over pictures of their own
    mean IoU; both with a bootstrap over pictures.
    """
    check = CHECKS[kind]
    findings = [next((f for f in r.report.findings if f.name == check), None) for r in (before, after)]
    first, second = findings
    if first is None or second is None or first.check != second.check:
        return Finding(
            "note",
            f"The audits have no {check} with the same options in common, so the runs were not paired: audit both with "
            f"--only {check}, or name the folders of the models with --data DATA.",
            check=NAME,
            summary=SUMMARY,
        )
    was, is_now = _by_picture(first), _by_picture(second)
    names = sorted(was.keys() & is_now.keys())
    if not names:
        return Finding("note", "The audits name no picture, so they were not paired.", check=NAME, summary=SUMMARY)
    gains = _of_boxes(was, is_now, names, seed) if kind == "detector" else _of_pixels(was, is_now, names, seed)
    (of, main), *others = gains
    score = "AP50" if kind == "detector" else "mean IoU"
    extra = "".join(f"; {words} {show(g.before, '')} before, {show(g.after, '')} after" for words, g in others[:1])
    values = [(f"{score}, of all pictures together", Gain(first.value, second.value, None))]
    return Finding(
        "note",
        f"From {before.name} to {after.name}: {score} {share(first.value)} before, {share(second.value)} after; "
        f"{gain_words(of, main)}{extra}.",
        quantity=f"{of} gained",
        value=main.value,
        interval=main.interval,
        n=len(names),
        notes=(cost_words(of, main.interval), NEEDS_MODELS.format(why=WHY_NO_INTERVAL[kind])),
        tables=(
            *table("Before and after, on the same pictures", gain_rows([*values, *gains])),
            *table("Pictures, the largest loss first", _picture_rows(was, is_now, names, kind)),
        ),
        check=NAME,
        summary=SUMMARY,
    )


def _by_picture(finding: Finding) -> dict[str, dict[str, Cell]]:
    rows = [(named_in(row), row) for t in finding.tables for row in t.rows]
    return {name: dict(row) for name, row in rows if name is not None}


def _column(rows: Rows, names: list[str], column: str) -> Numbers:
    return np.array([float(rows[name].get(column) or 0.0) for name in names])


def _of_boxes(before: Rows, after: Rows, names: list[str], seed: int) -> list[tuple[str, Gain]]:
    objects = _column(before, names, "objects")
    found = [_column(rows, names, "found") for rows in (before, after)]
    alarms = [_column(rows, names, "false alarms") for rows in (before, after)]
    return [
        ("objects found", gain_of_ratio(found[0], found[1], objects, seed)),
        ("false alarms a picture", gain_of_mean(alarms[0], alarms[1], seed)),
    ]


def _of_pixels(before: Rows, after: Rows, names: list[str], seed: int) -> list[tuple[str, Gain]]:
    def gain(column: str) -> Gain:
        return gain_of_mean(_column(before, names, column), _column(after, names, column), seed)

    return [("mean IoU of a picture", gain("mean IoU")), ("pixels right in a picture", gain("pixels right"))]


def _picture_rows(before: Rows, after: Rows, names: list[str], kind: str) -> list[dict[str, Cell]]:
    columns = ("found", "false alarms") if kind == "detector" else ("mean IoU", "pixels right")
    change = {name: [_column(after, [name], c)[0] - _column(before, [name], c)[0] for c in columns] for name in names}
    order = sorted((n for n in names if any(change[n])), key=lambda name: (change[name][0], name))
    return [_picture_row(name, before[name], after[name], columns) for name in order]


def _picture_row(
    name: str, before: Mapping[str, Cell], after: Mapping[str, Cell], columns: Sequence[str]
) -> dict[str, Cell]:
    row: dict[str, Cell] = {"picture": name}
    for column in columns:
        row |= {f"{column} before": before.get(column), f"{column} after": after.get(column)}
    return row
