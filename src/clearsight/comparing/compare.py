"""Comparison of several runs of one kind of model, on the same data."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clearsight.auditing.audit import parse_checks
from clearsight.comparing.classifiers import compare_classifiers
from clearsight.comparing.place_pictures import open_places
from clearsight.comparing.places import compare_places
from clearsight.comparing.repair import NAME
from clearsight.comparing.sources import RunToCompare, Stated, one_kind, opened, own_pictures
from clearsight.comparing.summary import Reports, audit_notes
from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.core.progress import Progress
from clearsight.core.score_kinds import Scores
from clearsight.data.datasets import Pictures, open_data
from clearsight.errors import Refused
from clearsight.reporting.facts import RunFacts
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report

CHECKS = {
    "classifier": "accuracy, trustworthiness",
    "detector": "detection-accuracy, detection-errors",
    "segmenter": "segmentation-accuracy",
}
DataWords = dict[str, Any]  # the options of data by name, None where they are not given


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
    runs: Sequence[str | Path | Model | Report],
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

    Models are audited by ``only`` on the data; of audits the findings are taken as they are.  All runs are of one kind:
    of classifiers, of detectors or of segmenters.

    Two runs, named one by one, are also paired picture by picture: the first is the state before a repair, the second
    the state after it.  The finding ``repair`` says which pictures were mended and which were broken, the difference of
    accuracy with its interval and McNemar's test, and how the reasons changed; it draws the maps of both side by side.
    Of detectors it says what became of every object, of segmenters of each picture's IoU, with the paired difference of
    AP50 or of mean IoU, and draws the boxes or class maps of both.

    Args:
        runs: two or more of: model folders, folders of ``train --repeat``, folders of audits, models, Reports.
        data: pictures or texts from ``folder``, ``open_boxes`` or ``open_masks``, or a path; without it those that the
            runs' own split.csv kept from all.
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
        only: checks to run, with options as in "robustness(eps=8/255)"; by default accuracy and those about reasons, or
            the accuracy and the errors of boxes, or the accuracy of pixels.
        method: explainer of all checks; "auto" for the one that a check chooses.
        seed: start of all randomness.
        device: "cpu", "cuda", "mps".
        trust: whether code of model folders that are no plain weights may be run.
        command: the command that makes this comparison, for the report to quote.
        progress: called with the name of the step, the number of pictures done and the total.

    Refused: fewer than two runs, runs of several kinds of model, detectors and segmenters of other classes and without
    boxes or class maps, audits that did not use the same pictures, exported files that do not say their labels
    and preprocessing where these are not stated, and what is stated where no run lacks it.
    """
    began = time.monotonic()
    compared, notes = opened(runs, Stated(labels, preprocess, scores), device=device, trust=trust)
    kind = one_kind(compared)
    calls = parse_checks(CHECKS[kind] if only is None else only, kind)
    options: DataWords = {
        "boxes": boxes, "masks": masks, "split": split, "voc_base": voc_base, "classes": classes,
        "label_column": label_column, "text_column": text_column, "marks_column": marks_column,
    }  # fmt: skip
    pictures = _pictures(kind, compared, data, options)
    tell: Progress = progress or (lambda what, done, total: None)
    pair, asked = len(runs) == len(compared) == 2, only is not None
    if kind == "classifier":
        findings, reports = compare_classifiers(
            compared, pictures, calls, asked=asked, pair=pair, method=method, notes=notes, seed=seed, tell=tell
        )
    else:
        findings, reports = compare_places(
            kind, compared, pictures, calls, asked=asked, pair=pair, method=method, notes=notes, seed=seed, tell=tell
        )
    facts = _facts(_source_words(runs), reports, command, round(time.monotonic() - began, 2))
    return Comparison(facts, tuple(replace(f, command=command) for f in findings))


def _pictures(
    kind: str, compared: Sequence[RunToCompare], data: Pictures | str | Path | None, options: DataWords
) -> Pictures | None:
    """The pictures on which the models among the runs are judged; None where there is no model."""
    models = [r for r in compared if r.report is None]
    given = [name for name, value in options.items() if value is not None]
    if given and isinstance(data, Pictures):
        raise Refused("data is a Pictures object, which holds its annotations: leave boxes, masks and the like out")
    if not models and (data is not None or given):
        raise Refused("audits bring their own findings, and no pictures are read again: leave data and its options out")
    if not models:
        return None
    if isinstance(data, Pictures):
        return data
    if kind != "classifier":
        return open_places(kind, models, data, options)
    if data is not None:
        return open_data(data, **options)
    if named_columns := [f"--{name.replace('_', '-')}" for name in given if name.endswith("_column")]:
        raise Refused(
            f"{', '.join(named_columns)} is for data that --data names, and a split.csv has its columns: leave it out"
        )
    return own_pictures(models, **{name: value for name, value in options.items() if not name.endswith("_column")})


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


def _source_words(runs: Sequence[str | Path | Model | Report]) -> str:
    """The words that named the runs, as on a command line."""
    sources = [r.source if isinstance(r, Model) else r for r in runs]
    plain = [s.facts.model.source if isinstance(s, Report) else str(s) for s in sources]
    return " ".join(shlex.quote(word) if word else "model" for word in plain)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:16]
