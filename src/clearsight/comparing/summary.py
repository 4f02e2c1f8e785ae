"""What the findings of several runs come to: each check over all runs, and all checks run by run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from clearsight.auditing.evidence import bounds, share
from clearsight.comparing.sources import RunToCompare
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.data.splits import named
from clearsight.drawing import charts
from clearsight.drawing.charts import Cross
from clearsight.models.model_folder import RECIPE
from clearsight.reporting.findings import Cell, Figure, Finding, Table
from clearsight.reporting.report import Report
from clearsight.reporting.spread import EXPECTED, between, deviation, homogeneity, median_interval
from clearsight.reporting.wording import WORDS, show, show_interval
from clearsight.training.recipe import read_recipe

LEVEL = 0.05  # of the test: below it the spread is called larger than chance allows
Found = Sequence[tuple[str, Finding]]  # the run's name, and what one check found of it
Known = Sequence[tuple[str, Finding, float]]  # those that have a value
Reports = Sequence[tuple[str, Report]]  # the run's name, and its audit


def by_check(reports: Reports) -> dict[str, Found]:
    """The findings of all runs by the check's spelling, in the order in which they first come."""
    spelled = dict.fromkeys(f.check for _, r in reports for f in r.findings)
    return {check: [(name, f) for name, r in reports for f in r.findings if f.check == check] for check in spelled}


def _known(found: Found) -> Known:
    return [(name, f, f.value) for name, f in found if f.value is not None and f.verdict != "error"]


def known_by(by: Mapping[str, Found], name: str) -> Known:
    """What the runs have for the first check of this name, whatever its options."""
    return next((_known(found) for spelled, found in by.items() if spelled.partition("(")[0] == name), [])


def over(spelled: str, found: Found) -> Finding:
    """How the values of one check lie over the runs, and whether they differ by more than chance allows."""
    known, first = _known(found), found[0][1]
    failed = any(f.verdict == "error" for _, f in found)
    if not known:
        return replace(first, verdict="error" if failed else "note", evidence=(), figures=(), tables=())
    values, unit = [v for _, _, v in known], first.unit
    lie = [between(values, unit), show(median(values), unit), show(deviation(values), unit)]
    quantity = first.quantity or first.name
    tested, notes = _tested(known)
    return Finding(
        "error" if failed else "note",
        f"{quantity[0].upper()}{quantity[1:]} of {counted(len(known), 'run')}: {lie[0]}, median {lie[1]}, standard "
        f"deviation {lie[2]}. {tested}",
        quantity=f"median: {quantity}",
        value=median(values),
        interval=median_interval(values),
        n=len(known),
        unit=unit,
        chance=median(c) if (c := [f.chance for _, f, _ in known if f.chance is not None]) else None,
        notes=(
            *(f"{name} is left out: {f.headline}" for name, f in found if f.value is None or f.verdict == "error"),
            "The value is the median over runs and n is how many; its interval, from six runs on, is bounded by two of "
            "them and says where the median of endless such runs lies.",
            *notes,
            *_first_notes(first),
        ),
        tables=(Table("By run, the lowest first", tuple(_row(*k) for k in sorted(known, key=lambda k: k[2]))),),
        check=spelled,
        summary=first.summary,
        paper=first.paper,
    )


def _first_notes(f: Finding) -> tuple[str, ...]:
    """What a check says of how it judges, which holds for all runs: its first sentence."""
    return f.notes[:1] if f.has_bar else ()


def _tested(known: Known) -> tuple[str, tuple[str, ...]]:
    """Whether the spread is larger than chance allows, where the values are shares of pictures."""
    counts = [_count(f) for _, f, _ in known]
    if len(known) < 2 or any(k is None for k in counts):
        return "Whether that is more than chance is not tested: the values are no shares of pictures.", ()
    right, n = [k for k in counts if k is not None], [f.n for _, f, _ in known]
    h = homogeneity(right, n)
    per = f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"
    word = "more than chance allows" if h.p < LEVEL else "no more than chance allows"
    notes = [
        "All runs see the same pictures, some of which are hard for every run, so that chance moves them less than the "
        "test supposes: it is conservative, and a spread that it finds is there."
    ]
    if 0 < h.expected < EXPECTED:
        notes.append(f"In a run {h.expected:.1f} pictures of one kind are expected, fewer than 5: p is a rough guide.")
    told = f"chi-square {h.statistic:.3g} at {counted(h.freedom, 'degree')} of freedom, p {_p(h.p)}"
    return f"The runs differ by {word} for {per} pictures each ({told}).", tuple(notes)


def _p(p: float) -> str:
    return "below 0.0001" if p < 0.0001 else f"= {p:.2g}"


def _count(f: Finding) -> int | None:
    """How many of its n pictures a value is the share of; None where it is none: only a share has Wilson's interval."""
    if f.value is None or f.interval is None or not f.n:
        return None
    k = round(f.value * f.n)
    near = [abs(a - b) < 1e-9 for a, b in zip((*f.interval, f.value), (*wilson(k, f.n), k / f.n), strict=True)]
    return k if all(near) else None


def _row(name: str, f: Finding, value: float) -> dict[str, Cell]:
    return {"run": name, f.quantity or f.name: value, **bounds(f.interval), "n": f.n, "by itself": WORDS[f.verdict]}


def side_by_side(
    found: Sequence[RunToCompare],
    reports: Reports,
    by: Mapping[str, Found],
    alike: Finding,
    notes: Sequence[str],
) -> Finding:
    """The runs side by side, what they have in common, and the sentence over all."""
    return Finding(
        "note",
        _sentence(len(found), by, alike),
        notes=(*notes, *said(reports), *_explained(reports)),
        tables=(
            Table("What the runs have in common", tuple(_common(found, reports))),
            Table("By run", tuple(_beside(name, by) for name, _ in reports)),
        ),
        figures=_plane(by),
        check="runs",
        summary="What have the runs in common, and how far do they lie apart?",
        seconds=round(sum(r.facts.seconds for _, r in reports), 3),
    )


def _sentence(k: int, by: Mapping[str, Found], alike: Finding) -> str:
    right, trusted = known_by(by, "accuracy"), known_by(by, "trustworthiness")
    if right:
        n = max(f.n for _, f, _ in right)
        told = f"{k} runs are right on {_lie(right)} of {counted(n, 'picture')}"
    else:
        told = f"Of {k} runs it is not known how often they are right"
    if trusted:
        return f"{told}, and {_lie(trusted)} of their right answers have an acceptable reason."
    if alike.value is None:
        return f"{told}; nothing says for which reasons."
    return f"{told}, and the maps of two of them have a rank correlation of {show(alike.value, '')} on average."


def said(reports: Reports) -> list[str]:
    """What every audit says of its pictures and its model; with the run's name where it is not said of all."""
    notes: dict[str, list[str]] = {}
    for name, report in reports:
        for note in report.facts.data.notes:
            notes.setdefault(note, []).append(name)
    stopped = [name for name, r in reports if not r.facts.complete]
    told = [note if len(who) == len(reports) else f"{named(who)}: {note}" for note, who in notes.items()]
    return [*([f"The audit of {named(stopped)} was stopped before its end."] if stopped else []), *told]


def _explained(reports: Reports) -> list[str]:
    methods = {r.facts.method.partition("(")[0] for _, r in reports} - {""}
    if len(methods) < 2:
        return []
    return [
        f"The runs were explained by {', '.join(sorted(methods))}: what these say of reasons is not the same thing."
    ]


def _lie(known: Known) -> str:
    return between([v for _, _, v in known], "share")


def _common(found: Sequence[RunToCompare], reports: Reports) -> list[dict[str, Cell]]:
    """What is the same in all runs, and what is not."""
    facts = [r.facts for _, r in reports]
    rows = [
        ("network", [f"{f.model.network}, {f.model.parameters:,} parameters" for f in facts]),
        ("classes", [str(f.model.classes) for f in facts]),
        ("input", [" x ".join(map(str, f.model.preprocess.size)) for f in facts]),
        ("weights", [f.model.fingerprint for f in facts]),
        ("pictures", [f"{f.data.labelled} labelled, {f.data.annotated} annotated" for f in facts]),
        ("maps by", [f.method or "none" for f in facts]),
        ("seed of the checks", [str(f.seed) for f in facts]),
    ]
    told: list[dict[str, Cell]] = [{"what": what, "in the runs": _alike(values)} for what, values in rows]
    return told + _recipes(found)


def _alike(values: Sequence[str]) -> str:
    there = list(dict.fromkeys(values))
    if len(there) == 1:
        return there[0]
    return f"differ: {named(there)}" if len(there) < len(values) else f"all {len(values)} differ"


def _recipes(found: Sequence[RunToCompare]) -> list[dict[str, Cell]]:
    """What the recipes of training runs, and their splits, have in common."""
    files = [Path(r.words) / RECIPE for r in found if r.words and (Path(r.words) / RECIPE).is_file()]
    if len(files) < len(found):
        return []
    recipes = [read_recipe(file)[2].as_dict() for file in files]
    splits = {json.loads(file.read_text(encoding="utf-8"))["data"] for file in files}
    differ = [name for name in recipes[0] if any(r[name] != recipes[0][name] for r in recipes)]
    return [
        {"what": "recipe", "in the runs": f"the same but for {', '.join(differ)}" if differ else "the same"},
        {"what": "split of the pictures", "in the runs": "the same" if len(splits) == 1 else "not the same"},
    ]


def _beside(name: str, by: Mapping[str, Found]) -> dict[str, Cell]:
    """One run: the value of every check; of accuracy and trust the interval and n as well."""
    row: dict[str, Cell] = {"run": name}
    for spelled, found in by.items():
        f = dict(found).get(name)
        what = next((g.quantity for _, g in found if g.quantity), "") or spelled
        what = spelled if what in row else what
        row[what] = f.value if f is not None and f.verdict != "error" else None
        if spelled.partition("(")[0] in ("accuracy", "trustworthiness"):
            row[f"95 % of {spelled}"] = show_interval(f) if f is not None else "–"
            row[f"n of {spelled}"] = f.n if f is not None else None
    return row


def _plane(by: Mapping[str, Found]) -> tuple[Figure, ...]:
    """Accuracy against trust, a dot for each run that has both."""
    right = {name: f for name, f, _ in known_by(by, "accuracy")}
    trusted = {name: f for name, f, _ in known_by(by, "trustworthiness")}
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
            "same scale: runs that stand above one another are as accurate, and not as trustworthy.",
            f"{counted(len(dots), 'run')}: accuracy spans {wide}, acceptable reasons {high}.",
        ),
    )
