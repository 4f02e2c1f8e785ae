"""Tables over several runs: each check over all runs, and all checks run by run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from clearsight.auditing.evidence import bounds, share
from clearsight.comparing.sources import RunToCompare
from clearsight.core.catalogue import method_name
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.data.splits import named
from clearsight.drawing import charts
from clearsight.drawing.charts import Cross
from clearsight.models.model_folder import RECIPE
from clearsight.reporting.findings import Cell, Figure, Finding, Table
from clearsight.reporting.report import Report
from clearsight.reporting.spread import EXPECTED, between, deviation, homogeneity, median_interval
from clearsight.reporting.wording import WORDS, p_value, show, show_interval
from clearsight.training.objects.recipe import read_object_recipe
from clearsight.training.recipe import read_recipe

_WITH_INTERVAL = ("accuracy", "trustworthiness", "detection-accuracy", "segmentation-accuracy")  # in the table by run
LEVEL = 0.05  # of the test: below it the spread is called larger than chance allows
CheckFindings = Sequence[tuple[str, Finding]]  # the run's name, and what one check found of it
Values = Sequence[tuple[str, Finding, float]]  # those that have a value
Reports = Sequence[tuple[str, Report]]  # the run's name, and its audit


def by_check(reports: Reports) -> dict[str, CheckFindings]:
    """The findings of all runs by the check's spelling, in the order in which they first come."""
    spelled = dict.fromkeys(f.check for _, r in reports for f in r.findings)
    return {check: [(name, f) for name, r in reports for f in r.findings if f.check == check] for check in spelled}


def _with_value(findings: CheckFindings) -> Values:
    return [(name, f, f.value) for name, f in findings if f.value is not None and f.verdict != "error"]


def values_of_check(findings_by_check: Mapping[str, CheckFindings], name: str) -> Values:
    """The values of all runs for the first check of this name, whatever its options."""
    return next(
        (_with_value(findings) for spelled, findings in findings_by_check.items() if method_name(spelled) == name),
        [],
    )


def summarise_check(spelled: str, findings: CheckFindings, thing: str = "picture") -> Finding:
    """The spread of one check's values over the runs, and whether it is larger than chance allows."""
    values, first = _with_value(findings), findings[0][1]
    failed = any(f.verdict == "error" for _, f in findings)
    if not values:
        return replace(first, verdict="error" if failed else "note", evidence=(), figures=(), tables=())
    numbers, unit = [v for _, _, v in values], first.unit
    spread = [between(numbers, unit), show(median(numbers), unit), show(deviation(numbers), unit)]
    quantity = first.quantity or first.name
    tested, notes = _test_spread(values, f"{thing}s")
    return Finding(
        "error" if failed else "note",
        f"{quantity[0].upper()}{quantity[1:]} of {counted(len(numbers), 'run')}: {spread[0]}, median {spread[1]}, "
        f"standard deviation {spread[2]}. {tested}",
        quantity=f"median: {quantity}",
        value=median(numbers),
        interval=median_interval(numbers),
        n=len(values),
        unit=unit,
        chance=median(c) if (c := [f.chance for _, f, _ in values if f.chance is not None]) else None,
        notes=(
            *(f"{name} is left out: {f.headline}" for name, f in findings if f.value is None or f.verdict == "error"),
            "The value is the median over runs, and n is their number. Its interval, from six runs on, is bounded by "
            "two of the values and says where the median of infinitely many such runs lies.",
            *notes,
            *_first_notes(first),
        ),
        tables=(Table("By run, the lowest first", tuple(_row(*k) for k in sorted(values, key=lambda k: k[2]))),),
        check=spelled,
        summary=first.summary,
        paper=first.paper,
    )


def _first_notes(f: Finding) -> tuple[str, ...]:
    """The first note of a check, which says how it judges and holds for all runs."""
    return f.notes[:1] if f.has_bar else ()


def _test_spread(values: Values, things: str) -> tuple[str, tuple[str, ...]]:
    """Whether the spread is larger than chance allows, where the values are shares of pictures."""
    counts = [_share_count(f) for _, f, _ in values]
    if len(values) < 2 or any(k is None for k in counts):
        return (
            "Whether that is more than chance allows was not tested, because the values are no shares of the data.",
            (),
        )
    right, n = [k for k in counts if k is not None], [f.n for _, f, _ in values]
    h = homogeneity(right, n)
    per = f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"
    verdict = "more than chance allows" if h.p < LEVEL else "no more than chance allows"
    notes = [
        "All runs see the same data, some of which is hard for every run, so chance moves the values less than "
        "the test assumes. It is conservative: a spread that it finds is real."
    ]
    if 0 < h.expected < EXPECTED:
        notes.append(f"In a run {h.expected:.1f} answers of one kind are expected, fewer than 5: p is a rough guide.")
    test = f"chi-square {h.statistic:.3g} at {counted(h.freedom, 'degree')} of freedom, p {p_value(h.p)}"
    return f"The runs differ by {verdict} for {per} {things} each ({test}).", tuple(notes)


def _share_count(f: Finding) -> int | None:
    """How many of its n pictures a value is the share of; None where it is none: only a share has Wilson's interval."""
    if f.value is None or f.interval is None or not f.n:
        return None
    k = round(f.value * f.n)
    near = [abs(a - b) < 1e-9 for a, b in zip((*f.interval, f.value), (*wilson(k, f.n), k / f.n), strict=True)]
    return k if all(near) else None


def _row(name: str, f: Finding, value: float) -> dict[str, Cell]:
    return {"run": name, f.quantity or f.name: value, **bounds(f.interval), "n": f.n, "by itself": WORDS[f.verdict]}


def side_by_side(
    compared: Sequence[RunToCompare],
    reports: Reports,
    findings_by_check: Mapping[str, CheckFindings],
    alike: Finding,
    notes: Sequence[str],
) -> Finding:
    """The first finding: the runs side by side, what they have in common, and a sentence on all of them."""
    return Finding(
        "note",
        _sentence(len(compared), reports[0][1].facts.thing, findings_by_check, alike),
        notes=(*notes, *audit_notes(reports), *_explainer_notes(reports)),
        tables=(
            Table("What the runs have in common", tuple(common_rows(compared, reports))),
            Table("By run", tuple(run_row(name, findings_by_check) for name, _ in reports)),
        ),
        figures=_accuracy_trust_plot(findings_by_check),
        check="runs",
        summary="What do the runs have in common, and how much do they differ?",
        seconds=round(sum(r.facts.seconds for _, r in reports), 3),
    )


def _sentence(k: int, thing: str, findings_by_check: Mapping[str, CheckFindings], alike: Finding) -> str:
    right, trusted = (
        values_of_check(findings_by_check, "accuracy"),
        values_of_check(findings_by_check, "trustworthiness"),
    )
    if right:
        n = max(f.n for _, f, _ in right)
        accuracy = f"{k} runs are right on {_range(right)} of {counted(n, thing)}"
    else:
        accuracy = f"The accuracy of {k} runs is not known"
    if trusted:
        return f"{accuracy}, and {_range(trusted)} of their right answers have an acceptable reason."
    if alike.value is None:
        return f"{accuracy}; their reasons were not compared."
    return f"{accuracy}, and the maps of two of them have a rank correlation of {show(alike.value, '')} on average."


def audit_notes(reports: Reports) -> list[str]:
    """The notes of all audits on their pictures and models; with the run's name where not all have the same note."""
    notes: dict[str, list[str]] = {}
    for name, report in reports:
        for note in report.facts.data.notes:
            notes.setdefault(note, []).append(name)
    stopped = [name for name, r in reports if not r.facts.complete]
    sentences = [note if len(names) == len(reports) else f"{named(names)}: {note}" for note, names in notes.items()]
    return [*([f"The audit of {named(stopped)} was stopped before it was complete."] if stopped else []), *sentences]


def _explainer_notes(reports: Reports) -> list[str]:
    methods = {method_name(r.facts.method) for _, r in reports} - {""}
    if len(methods) < 2:
        return []
    return [f"The runs were explained by {', '.join(sorted(methods))}, whose maps are not comparable with each other."]


def _range(values: Values) -> str:
    return between([v for _, _, v in values], "share")


def common_rows(compared: Sequence[RunToCompare], reports: Reports) -> list[dict[str, Cell]]:
    """What is the same in all runs, and what is not."""
    facts = [r.facts for _, r in reports]
    rows = [
        ("network", [f"{f.model.network}, {f.model.parameters:,} parameters" for f in facts]),
        ("classes", [str(f.model.classes) for f in facts]),
        ("input", [" x ".join(map(str, f.model.preprocess.size)) for f in facts]),
        ("weights", [f.model.fingerprint for f in facts]),
        (f"{facts[0].thing}s", [f"{f.data.labelled} labelled, {f.data.annotated} annotated" for f in facts]),
        *([("maps by", [f.method or "none" for f in facts])] if facts[0].model.kind == "classifier" else []),
        ("seed of the checks", [str(f.seed) for f in facts]),
    ]
    common: list[dict[str, Cell]] = [{"what": what, "in the runs": _agreement(values)} for what, values in rows]
    return common + _recipe_rows(compared, facts[0].thing)


def _agreement(values: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    return f"differ: {named(distinct)}" if len(distinct) < len(values) else f"all {len(values)} differ"


def _recipe_rows(compared: Sequence[RunToCompare], thing: str) -> list[dict[str, Cell]]:
    """What the recipes of training runs, and their splits, have in common."""
    files = [Path(r.words) / RECIPE for r in compared if r.words and (Path(r.words) / RECIPE).is_file()]
    if len(files) < len(compared):
        return []
    read = read_recipe if compared[0].kind == "classifier" else read_object_recipe
    recipes = [read(file)[2].as_dict() for file in files]
    splits = {json.loads(file.read_text(encoding="utf-8"))["data"] for file in files}
    differ = [name for name in recipes[0] if any(r[name] != recipes[0][name] for r in recipes)]
    return [
        {"what": "recipe", "in the runs": f"the same but for {', '.join(differ)}" if differ else "the same"},
        {"what": f"split of the {thing}s", "in the runs": "the same" if len(splits) == 1 else "not the same"},
    ]


def run_row(name: str, findings_by_check: Mapping[str, CheckFindings]) -> dict[str, Cell]:
    """One run: the value of every check; of accuracy and trust the interval and n as well."""
    row: dict[str, Cell] = {"run": name}
    for spelled, findings in findings_by_check.items():
        f = dict(findings).get(name)
        column = next((g.quantity for _, g in findings if g.quantity), "") or spelled
        column = spelled if column in row else column
        row[column] = f.value if f is not None and f.verdict != "error" else None
        if method_name(spelled) in _WITH_INTERVAL:
            row[f"95 % of {spelled}"] = show_interval(f) if f is not None else "–"
            row[f"n of {spelled}"] = f.n if f is not None else None
    return row


def _accuracy_trust_plot(findings_by_check: Mapping[str, CheckFindings]) -> tuple[Figure, ...]:
    """Accuracy against trust, a dot for each run that has both."""
    right = {name: f for name, f, _ in values_of_check(findings_by_check, "accuracy")}
    trusted = {name: f for name, f, _ in values_of_check(findings_by_check, "trustworthiness")}
    both = [(right[name], trusted[name]) for name in right if name in trusted]
    dots = [
        Cross(a.value, t.value, a.interval, t.interval)
        for a, t in both
        if a.value is not None and t.value is not None and a.interval is not None and t.interval is not None
    ]
    if not dots:
        return ()
    wide = share(max(d.x for d in dots) - min(d.x for d in dots))
    high = share(max(d.y for d in dots) - min(d.y for d in dots))
    return (
        Figure(
            "runs.svg",
            charts.plane(dots, xlabel="right answers", ylabel="of these, for an acceptable reason"),
            "One dot for each run: how often it is right, and how often for an acceptable reason. Both axes have the "
            "same scale: runs above one another are equally accurate, but not equally trustworthy.",
            f"{counted(len(dots), 'run')}: accuracy spans {wide}, acceptable reasons {high}.",
        ),
    )
