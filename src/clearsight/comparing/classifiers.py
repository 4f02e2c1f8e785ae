"""Comparison of runs of classifiers: the spread of their accuracy and trust, and how similar their maps are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from clearsight.auditing.assemble import make
from clearsight.auditing.audit import run_checks, with_model_notes
from clearsight.auditing.case import Case
from clearsight.auditing.engine_compared import compared_with_engine
from clearsight.comparing.answers import Answers, answers_of_case, audited_answers, labelled_answers
from clearsight.comparing.map_agreement import DRAWN, SUMMARY, compare_maps
from clearsight.comparing.one_of_several import JudgedRun, judged_runs
from clearsight.comparing.repair import RepairedRun, compare_repair
from clearsight.comparing.sources import RunToCompare
from clearsight.comparing.summary import (
    CheckFindings,
    Reports,
    by_check,
    side_by_side,
    summarise_check,
    values_of_check,
)
from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier, classifier_of
from clearsight.core.model import Model
from clearsight.core.progress import Progress
from clearsight.data.datasets import Pictures
from clearsight.data.splits import named
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report


def compare_classifiers(
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
    """The findings on all runs, and the report of each.  The arguments are those of `compare_places`."""

    def judge(run: RunToCompare, progress: Progress) -> tuple[Report, Answers]:
        assert pictures is not None
        return _audit(run, pictures, calls, method, seed, progress)

    runs = [*judged_runs(compared, calls if asked else None, judge, tell)]
    reports = [(run.name, run.report) for run in runs]
    answers = [run.answers for run in runs if run.answers is not None]
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
    if pair:
        before, after = (_repaired_run(run) for run in runs)
        repair = compare_repair(before, after, pictures, method=method, seed=seed, tell=tell)
        findings = (repair, *findings) if repair.value is not None else (first, repair, *over_runs, alike)
    return findings, reports


def _audit(
    run: RunToCompare, pictures: Pictures, calls: Sequence[Call], method: str, seed: int, tell: Progress
) -> tuple[Report, Answers]:
    assert run.load is not None
    began = time.monotonic()
    load = partial(_load, run.load)
    model, pictures = compared_with_engine(load(), pictures)
    case = Case(model, with_model_notes(pictures, model), seed=seed, method=method, progress=tell)
    report = make(case, list(run_checks(case, calls)), seconds=time.monotonic() - began)
    return report, Answers(run.name, load, (model.labels, model.preprocess), answers_of_case(case))


def _load(load: Callable[[], Model]) -> Classifier:
    return classifier_of(load(), "compare")


def _repaired_run(run: JudgedRun[Answers]) -> RepairedRun:
    """A run with what it answers picture by picture."""
    of_model = run.answers
    labelled = audited_answers(run.name, run.report) if of_model is None else labelled_answers(of_model)
    return RepairedRun(run.name, run.report, of_model, labelled)


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
