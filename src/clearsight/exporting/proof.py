"""What a kind of model is proved by: its case, its comparison, its bars and its sheet."""

from __future__ import annotations

from typing import Any

from clearsight.auditing.assemble import AnyCase
from clearsight.auditing.case import Case
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.core.progress import Progress
from clearsight.data.records import Pictures
from clearsight.exporting import place_sheet, sheet
from clearsight.exporting.parity import compare
from clearsight.exporting.place_parity import compare_places, place_case
from clearsight.exporting.sheet_parts import Compared, ExportReport
from clearsight.exporting.whole_file import WholeFile
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.reporting.facts import BarResult


def usual_agreement(model: Model, precision: str) -> float:
    """The share of same answers that is asked for where no other is given."""
    of_kind = sheet.AGREE if isinstance(model, Classifier) else place_sheet.PLACE_AGREE
    return of_kind[precision]


def open_case(model: Model, data: Pictures, seed: int, progress: Progress) -> AnyCase:
    """The pictures of a proof, read once: what does not fit is refused here."""
    case: AnyCase
    if isinstance(model, Classifier):
        case = Case(model, data, seed=seed, progress=progress)
    else:
        assert isinstance(model, Detector | Segmenter)
        case = place_case(model, data, seed, progress)
    _ = case.pictures, case.labelled
    return case


def parity(case: AnyCase, file: WholeFile, layer: str | None) -> Any:
    """The answers of both.  layer: that of a classifier's map, or None."""
    return compare(case, file, layer) if isinstance(case, Case) else compare_places(case, file)


def bars(case: AnyCase, compared: Compared[Any], agree: float) -> list[BarResult]:
    """What must hold."""
    of_kind: Any = sheet.bars if isinstance(case, Case) else place_sheet.place_bars
    found: list[BarResult] = of_kind(case, compared, agree)
    return found


def report(case: AnyCase, compared: Compared[Any], agree: float, seconds: float, command: str) -> ExportReport:
    """The sheet."""
    of_kind: Any = sheet.sheet if isinstance(case, Case) else place_sheet.place_sheet
    made: ExportReport = of_kind(case, compared, agree, seconds=seconds, command=command)
    return made
