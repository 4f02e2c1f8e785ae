"""Runs of detectors and segmenters: what each answers on the pictures, kept so that two can be paired."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearsight.auditing.assemble import make
from clearsight.auditing.audit import case_of, run_checks
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.segmenter_case import SegmenterCase
from clearsight.comparing.one_of_several import JudgedRun
from clearsight.comparing.sources import RunToCompare
from clearsight.core.catalogue import Call
from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.core.progress import Progress
from clearsight.data.records import Pictures
from clearsight.errors import Refused
from clearsight.evaluation.records import BoxSet
from clearsight.reporting.report import Report


@dataclass(frozen=True, eq=False)
class PlaceAnswers:
    """What a detector or a segmenter answers on the pictures that could be read.

    boxes: of a detector, with the true boxes.  pixels: of a segmenter, (n, 3, K) for each picture and class: pixels in
    both, in the truth, in the answer.
    """

    load: Callable[[], Model]
    labels: tuple[str, ...]
    preprocess: Preprocess
    pictures: tuple[str, ...]
    boxes: BoxSet | None
    pixels: NDArray[np.int64] | None


PlaceRun: TypeAlias = JudgedRun[PlaceAnswers]


def judge_places(
    run: RunToCompare, pictures: Pictures, calls: Sequence[Call], seed: int, progress: Progress
) -> tuple[Report, PlaceAnswers]:
    """The report on a model, audited on the pictures by the checks, and what it answers."""
    assert run.load is not None
    began = time.monotonic()
    model = run.load()
    case = case_of(model, pictures, seed=seed, progress=progress)
    assert isinstance(case, DetectorCase | SegmenterCase)
    report = make(case, list(run_checks(case, calls)), seconds=time.monotonic() - began)
    names = tuple(p.name for p in case.pictures)
    boxes = case.boxes if isinstance(case, DetectorCase) else None
    pixels = np.stack(case.counts.per_picture) if isinstance(case, SegmenterCase) else None
    return report, PlaceAnswers(run.load, model.labels, model.preprocess, names, boxes, pixels)


def refuse_other_classes(runs: Sequence[PlaceRun]) -> None:
    """Refuse runs that have not as many classes as the first: an audit keeps no more of them."""
    first = runs[0]
    for run in runs[1:]:
        count, other = (r.report.facts.model.classes for r in (first, run))
        if count != other:
            raise Refused(
                f"{run.name} has {other} classes and {first.name} {count}: compare models of the same classes"
            )


def refuse_other_pictures(runs: Sequence[PlaceRun]) -> None:
    """Refuse runs that did not see the same pictures with the same truth.

    Class maps are judged in the frame of a model's input, so those of models are compared by their pictures alone where
    inputs differ.
    """
    first = runs[0]
    for run in runs[1:]:
        if first.answers is not None and run.answers is not None and first.answers.preprocess != run.answers.preprocess:
            same = first.answers.pictures == run.answers.pictures
        else:
            same = first.report.facts.data.digest == run.report.facts.data.digest
        if not same:
            raise Refused(
                f"{run.name} used other pictures or annotations than {first.name}: audit both on the same data, or "
                "name the models with --data DATA"
            )
