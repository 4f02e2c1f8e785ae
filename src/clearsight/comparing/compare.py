"""Comparison of several runs: the spread of their accuracy and trust, and how similar their maps are."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clearsight.auditing.assemble import make
from clearsight.auditing.audit import parse_checks, run_checks, with_model_notes
from clearsight.auditing.case import Case
from clearsight.auditing.engine_compared import compared_with_engine
from clearsight.comparing.answers import Answers, answers_of_case, audited_answers, labelled_answers
from clearsight.comparing.map_agreement import DRAWN, SUMMARY, compare_maps
from clearsight.comparing.repair import NAME, RepairedRun, compare_repair
from clearsight.comparing.sources import RunToCompare, Stated, opened, own_pictures
from clearsight.comparing.summary import (
    CheckFindings,
    Reports,
    audit_notes,
    by_check,
    side_by_side,
    summarise_check,
    values_of_check,
)
from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.progress import Progress
from clearsight.core.score_kinds import Scores
from clearsight.data.datasets import Pictures, open_data
from clearsight.data.splits import named
from clearsight.errors import Refused
from clearsight.reporting.facts import RunFacts
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report

CHECKS = "accuracy, trustworthiness"


@dataclass(frozen=True)
class Comparison(Report):
    """A Report on several runs; its sentence is that of its first finding, which is about all of them.

    Of two runs this is what the second changed, and a second sentence says what both are.
    """

    kind = "comparison"

    @property
    def verdict(self) -> str:
        return self.findings[0].headline

    @property
    def opening(self) -> tuple[str, ...]:
        sentences = 2 if self.findings[0].name == NAME else 1
        return tuple(f.headline for f in self.findings[:sentences])

    @property
    def sheet(self) -> tuple[Finding, ...]:
        return self.findings


def compare(
    runs: Sequence[str | Path | Classifier | Report],
    data: Pictures | str | Path | None = None,
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    label_column: str | None = None,
    text_column: str | None = None,
    marks_column: str | None = None,
    classes: str | Path | None = None,
    voc_base: int | None = None,
    labels: str | Path | list[str] | tuple[str, ...] | None = None,
    preprocess: Preprocess | str | Path | None = None,
    scores: Scores | None = None,
    only: str | Sequence[str] | None = None,
    method: str = "auto",
    seed: int = 0,
    device: str = "cpu",
    trust: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """Compare the accuracy, the reasons and the maps of several runs -> a Comparison, which is a Report.

    Models are audited by ``only`` on the data; of audits the findings are taken as they are.

    Two runs, named one by one, are also paired picture by picture: the first is the state before a repair, the second
    the state after it.  The finding ``repair`` says which pictures were mended and which were broken, the difference of
    accuracy with its interval and McNemar's test, and how the reasons changed; it draws the maps of both side by side.

    Args:
        runs: two or more of: model folders, folders of ``train --repeat``, folders of audits, Classifiers, Reports.
        data: pictures or texts from ``folder``, or a path; without it those that the runs' own split.csv kept from all.
        boxes: boxes of objects, as in ``folder``.
        masks: masks of objects, as in ``folder``.
        split: part of the pictures, as in ``folder``.
        label_column: column with the labels, as in ``folder``.
        text_column: column with the texts, as in ``folder``.
        marks_column: column with the marked characters of texts, as in ``folder``.
        classes: file with the words of classes, as in ``folder``.
        voc_base: number from which pixels of boxes are counted, as in ``folder``.
        labels: class names of exported files that do not say them, as in ``load``.
        preprocess: preprocessing of exported files that do not say it, as in ``load``.
        scores: what such files return, as in ``load``.
        only: checks to run, with options as in "robustness(eps=8/255)"; by default accuracy and those about reasons.
        method: explainer of all checks; "auto" for the one that a check chooses.
        seed: start of all randomness.
        device: "cpu", "cuda", "mps".
        trust: whether code of model folders that are no plain weights may be run.
        command: the command that makes this comparison, for the report to quote.
        progress: called with the name of the step, the number of pictures done and the total.

    Refused: fewer than two runs, audits that did not use the same pictures, exported files that do not say their labels
    and preprocessing where these are not stated, and what is stated where no run lacks it.
    """
    began = time.monotonic()
    compared, notes = opened(runs, Stated(labels, preprocess, scores), device=device, trust=trust)
    calls = parse_checks(CHECKS if only is None else only)
    models = [r for r in compared if r.report is None]
    columns = {"label_column": label_column, "text_column": text_column, "marks_column": marks_column}
    options = (boxes, masks, split, classes, voc_base, *columns.values())
    data_options = any(option is not None for option in options)
    if data_options and isinstance(data, Pictures):
        raise Refused("data is a Pictures object, which holds its annotations: leave boxes, masks and the like out")
    if not models and (data is not None or data_options):
        raise Refused("audits bring their own findings, and no pictures are read again: leave data and its options out")
    pictures: Pictures | None = data if isinstance(data, Pictures) else None
    if models and isinstance(data, str | Path):
        pictures = open_data(
            data,
            boxes=boxes,
            masks=masks,
            split=split,
            classes=classes,
            voc_base=voc_base,
            **columns,
        )
    elif models and data is None:
        if named_columns := [f"--{name.replace('_', '-')}" for name, value in columns.items() if value is not None]:
            raise Refused(
                f"{', '.join(named_columns)} is for data that --data names, and a split.csv has its columns: leave it "
                "out"
            )
        pictures = own_pictures(models, boxes=boxes, masks=masks, split=split, classes=classes, voc_base=voc_base)
    tell: Progress = progress or (lambda what, done, total: None)
    reports: list[tuple[str, Report]] = []
    answers: list[Answers] = []
    for run in compared:
        if run.report is not None or pictures is None:
            reports.append((run.name, _select_findings(run, calls if only is not None else None)))
            continue
        done = len(answers)
        report, model_answers = _audit(run, pictures, calls, method, seed, _progress_of_run(tell, done, len(models)))
        reports.append((run.name, report))
        answers.append(model_answers)
    _same_pictures(reports)
    findings_by_check = by_check(reports)
    over_runs = [summarise_check(spelled, of, reports[0][1].facts.thing) for spelled, of in findings_by_check.items()]
    if pictures is not None and len(answers) == len(compared):
        alike = compare_maps(
            answers, pictures, _extremes(findings_by_check, answers), method=method, seed=seed, tell=tell
        )
    else:
        why = "Audits do not keep the maps of all pictures, so maps were not compared: name the folders of the models."
        alike = Finding("note", why, check="likeness", summary=SUMMARY)
    first = side_by_side(compared, reports, findings_by_check, alike, notes)
    findings = (first, *over_runs, alike)
    if len(runs) == len(compared) == 2:
        before, after = _repaired_runs(compared, reports, answers)
        repair = compare_repair(before, after, pictures, method=method, seed=seed, tell=tell)
        findings = (repair, *findings) if repair.value is not None else (first, repair, *over_runs, alike)
    facts = _facts(_source_words(runs), reports, command, round(time.monotonic() - began, 2))
    return Comparison(facts, tuple(replace(f, command=command) for f in findings))


def _progress_of_run(tell: Progress, k: int, of: int) -> Progress:
    """The progress of one run as a part of that of all."""
    return lambda what, done, total: tell(what, k * total + done, of * total)


def _audit(
    run: RunToCompare, pictures: Pictures, calls: Sequence[Call], method: str, seed: int, tell: Progress
) -> tuple[Report, Answers]:
    assert run.load is not None
    began = time.monotonic()
    model, pictures = compared_with_engine(run.load(), pictures)
    case = Case(model, with_model_notes(pictures, model), seed=seed, method=method, progress=tell)
    report = make(case, list(run_checks(case, calls)), seconds=time.monotonic() - began)
    return report, Answers(run.name, run.load, (model.labels, model.preprocess), answers_of_case(case))


def _repaired_runs(compared: Sequence[RunToCompare], reports: Reports, answers: Sequence[Answers]) -> list[RepairedRun]:
    """The two runs, each with what it answers picture by picture."""
    by_name = {a.name: a for a in answers}
    runs = []
    for run, (name, report) in zip(compared, reports, strict=True):
        of_model = by_name.get(name)
        audited = audited_answers(name, run.report) if run.report is not None else None
        labelled = labelled_answers(of_model) if of_model is not None else audited
        runs.append(RepairedRun(name, report, of_model, labelled))
    return runs


def _select_findings(run: RunToCompare, calls: Sequence[Call] | None) -> Report:
    """An audit with the findings of the given checks only; Refused if it has none of them."""
    assert run.report is not None
    names = {c.method.name for c in calls} if calls is not None else {f.name for f in run.report.findings}
    findings = tuple(f for f in run.report.findings if f.name in names)
    if not findings:
        raise Refused(
            f"{run.name} has none of the checks {', '.join(sorted(names))}: audit it again with --only and their names"
        )
    return replace(run.report, findings=findings)


def _same_pictures(reports: Reports) -> None:
    digests = {name: r.facts.data.digest for name, r in reports}
    first, *_ = digests
    other = [name for name, digest in digests.items() if digest != digests[first]]
    if other:
        raise Refused(
            f"{named(other)} used other pictures, labels or annotations than {first}: audit all on the same data, or "
            "name the models with --data DATA"
        )


def _extremes(findings_by_check: Mapping[str, CheckFindings], answers: Sequence[Answers]) -> list[str]:
    """The runs whose maps are drawn: the lowest, the middle and the highest by trust, else by accuracy."""
    values = values_of_check(findings_by_check, "trustworthiness") or values_of_check(findings_by_check, "accuracy")
    order = [name for name, _, _ in sorted(values, key=lambda k: k[2])]
    order += [a.name for a in answers if a.name not in order]
    last = len(order) - 1
    return list(dict.fromkeys(order[round(last * i / (DRAWN - 1))] for i in range(DRAWN)))


def _facts(words: str, reports: Reports, command: str, seconds: float) -> RunFacts:
    """The facts of the first run, with those that are about all runs in place of its own."""
    facts = [r.facts for _, r in reports]
    first = facts[0]
    methods = {f.method for f in facts}
    return replace(
        first,
        complete=all(f.complete for f in facts),
        command=command,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        case=_hash([f.case for f in facts]),
        method=methods.pop() if len(methods) == 1 else "",
        signed=any(f.signed for f in facts),
        model=replace(first.model, source=words, fingerprint=_hash([f.model.fingerprint for f in facts])),
        data=replace(first.data, notes=tuple(audit_notes(reports))),
        gate=None,
    )


def _source_words(runs: Sequence[str | Path | Classifier | Report]) -> str:
    """The words that named the runs, as on a command line."""
    sources = [r.source if isinstance(r, Classifier) else r for r in runs]
    plain = [s.facts.model.source if isinstance(s, Report) else str(s) for s in sources]
    return " ".join(shlex.quote(word) if word else "model" for word in plain)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:16]
