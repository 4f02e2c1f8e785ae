"""What equal accuracy hides: how the accuracy and the trust of several runs lie, and how alike their maps are."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clearsight.auditing.assemble import make
from clearsight.auditing.audit import chosen, noted, run_checks
from clearsight.auditing.case import Case
from clearsight.comparing.map_agreement import DRAWN, SUMMARY, Answers, agree
from clearsight.comparing.sources import RunToCompare, opened, own_pictures
from clearsight.comparing.summary import Found, Reports, by_check, known_by, over, said, side_by_side
from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier
from clearsight.core.progress import Progress
from clearsight.data.datasets import Pictures, open_data
from clearsight.data.splits import named
from clearsight.errors import Refused
from clearsight.reporting.facts import RunFacts
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report

CHECKS = "accuracy, trustworthiness"


@dataclass(frozen=True)
class Comparison(Report):
    """A Report on several runs: its sentence is the first finding's, which stands over all of them."""

    kind = "comparison"

    @property
    def verdict(self) -> str:
        return self.findings[0].headline

    @property
    def opening(self) -> tuple[str, ...]:
        return (self.verdict,)

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
    classes: str | Path | None = None,
    voc_base: int | None = None,
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

    Args:
        runs: two or more of: model folders, folders of ``train --repeat``, folders of audits, Classifiers, Reports.
        data: pictures from ``folder``, or a path; without it the pictures that the runs' own split.csv kept from all.
        boxes: boxes of objects, as in ``folder``.
        masks: masks of objects, as in ``folder``.
        split: part of the pictures, as in ``folder``.
        label_column: column with the labels, as in ``folder``.
        classes: file with the words of classes, as in ``folder``.
        voc_base: number from which pixels of boxes are counted, as in ``folder``.
        only: checks to run, with options as in "robustness(eps=8/255)"; by default accuracy and those about reasons.
        method: explainer of all checks; "auto" for the one that a check chooses.
        seed: start of all randomness.
        device: "cpu", "cuda", "mps".
        trust: whether code of model folders that are no plain weights may be run.
        command: the command that makes this comparison, for the report to quote.
        progress: called with what is done, the number done and the total.

    Refused: fewer than two runs, and runs that were not seen on the same pictures.
    """
    began = time.monotonic()
    found, notes = opened(runs, device=device, trust=trust)
    calls = chosen(CHECKS if only is None else only)
    models = [r for r in found if r.report is None]
    told = any(option is not None for option in (boxes, masks, split, label_column, classes, voc_base))
    if told and isinstance(data, Pictures):
        raise Refused("the pictures are given, with all that is known of them: leave boxes, masks and the like out")
    if not models and (data is not None or told):
        raise Refused(
            "audits bring their findings, and no pictures are looked at again: leave data and its options out"
        )
    pictures: Pictures | None = data if isinstance(data, Pictures) else None
    if models and isinstance(data, str | Path):
        pictures = open_data(
            data,
            boxes=boxes,
            masks=masks,
            split=split,
            label_column=label_column,
            classes=classes,
            voc_base=voc_base,
        )
    elif models and data is None:
        if label_column is not None:
            raise Refused("--label-column is for pictures that --data names: a model's own split.csv has its labels")
        pictures = own_pictures(models, boxes=boxes, masks=masks, split=split, classes=classes, voc_base=voc_base)
    tell: Progress = progress or (lambda what, done, total: None)
    reports: list[tuple[str, Report]] = []
    answers: list[Answers] = []
    for run in found:
        if run.report is not None or pictures is None:
            reports.append((run.name, _asked(run, calls if only is not None else None)))
            continue
        k = len(answers)
        report, said = _audited(run, pictures, calls, method, seed, _part(tell, k, len(models)))
        reports.append((run.name, report))
        answers.append(said)
    _same_pictures(reports)
    by = by_check(reports)
    judged = [over(spelled, runs) for spelled, runs in by.items()]
    if pictures is not None and len(answers) == len(found):
        alike = agree(answers, pictures, _extremes(by, answers), method=method, seed=seed, tell=tell)
    else:
        why = "An audit keeps no maps of all pictures, so these cannot be compared: name the folders of the models."
        alike = Finding("note", why, check="likeness", summary=SUMMARY)
    first = side_by_side(found, reports, by, alike, notes)
    findings = (first, *judged, alike)
    facts = _facts(_words(runs), reports, command, round(time.monotonic() - began, 2))
    return Comparison(facts, tuple(replace(f, command=command) for f in findings))


def _part(tell: Progress, k: int, of: int) -> Progress:
    """The progress of one run as a part of that of all."""
    return lambda what, done, total: tell(what, k * total + done, of * total)


def _audited(
    run: RunToCompare, pictures: Pictures, calls: Sequence[Call], method: str, seed: int, tell: Progress
) -> tuple[Report, Answers]:
    assert run.load is not None
    began = time.monotonic()
    model = run.load()
    case = Case(model, noted(pictures, model), seed=seed, method=method, progress=tell)
    report = make(case, list(run_checks(case, calls)), seconds=time.monotonic() - began)
    names = [p.name for p in case.pictures]
    said = {name: model.labels[int(c)] for name, c in zip(names, case.predicted, strict=True)}
    right = frozenset(names[i] for i in case.labelled if case.right[i])
    return report, Answers(run.name, run.load, said, right, bool(case.labelled), (model.labels, model.preprocess))


def _asked(run: RunToCompare, calls: Sequence[Call] | None) -> Report:
    """An audit, with the findings that were asked for."""
    assert run.report is not None
    names = {c.method.name for c in calls} if calls is not None else {f.name for f in run.report.findings}
    kept = tuple(f for f in run.report.findings if f.name in names)
    if not kept:
        raise Refused(f"{run.name} has none of the checks {', '.join(sorted(names))}: audit it with --only and these")
    return replace(run.report, findings=kept)


def _same_pictures(reports: Reports) -> None:
    digests = {name: r.facts.data.digest for name, r in reports}
    first, *_ = digests
    other = [name for name, digest in digests.items() if digest != digests[first]]
    if other:
        raise Refused(
            f"{named(other)} saw other pictures, labels or annotations than {first}: audit all on the same, or name "
            "the models with --data DATA"
        )


def _extremes(by: Mapping[str, Found], answers: Sequence[Answers]) -> list[str]:
    """The runs whose maps are drawn: the lowest, the middle and the highest by trust, else by accuracy."""
    known = known_by(by, "trustworthiness") or known_by(by, "accuracy")
    order = [name for name, _, _ in sorted(known, key=lambda k: k[2])]
    order += [a.name for a in answers if a.name not in order]
    last = len(order) - 1
    return list(dict.fromkeys(order[round(last * i / (DRAWN - 1))] for i in range(DRAWN)))


def _facts(words: str, reports: Reports, command: str, seconds: float) -> RunFacts:
    """The first run's, with what is told of all runs in its place."""
    facts = [r.facts for _, r in reports]
    one = facts[0]
    methods = {f.method for f in facts}
    return replace(
        one,
        complete=all(f.complete for f in facts),
        command=command,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        case=_hash([f.case for f in facts]),
        method=methods.pop() if len(methods) == 1 else "",
        signed=any(f.signed for f in facts),
        model=replace(one.model, source=words, fingerprint=_hash([f.model.fingerprint for f in facts])),
        data=replace(one.data, notes=tuple(said(reports))),
        gate=None,
    )


def _words(runs: Sequence[str | Path | Classifier | Report]) -> str:
    """What the runs were named by."""
    sources = [r.source if isinstance(r, Classifier) else r for r in runs]
    plain = [s.facts.model.source if isinstance(s, Report) else str(s) for s in sources]
    return " ".join(shlex.quote(word) if word else "model" for word in plain)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:16]
