"""What the sheets of all kinds of model have: the report, and the findings that do not depend on what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from clearsight.auditing.assemble import AnyCase
from clearsight.exporting.int8_search import Int8
from clearsight.exporting.latency import Speed
from clearsight.exporting.layers_apart import LayerGaps
from clearsight.exporting.whole_file import WholeFile
from clearsight.reporting.findings import Cell, Finding, Table, Verdict
from clearsight.reporting.report import Report
from clearsight.reporting.wording import show

_LAYER = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.3}  # of a tensor's norm
_ANSWER = {"classifier": "its probabilities", "detector": "its boxes", "segmenter": "the class of each pixel"}


@dataclass(frozen=True)
class ExportReport(Report):
    """A Report on how far a file answers as the model does; its first sentence says whether it passes its bars."""

    kind = "export"

    @property
    def verdict(self) -> str:
        missed = [bar for bar in self.facts.gate or () if not bar.held]
        if not missed:
            return "The file answers as the model does."
        return f"The export fails: {'; '.join(f'{b.check} {b.bar}, it is {b.value}' for b in missed)}."

    @property
    def opening(self) -> tuple[str, ...]:
        return (self.verdict, self.findings[0].headline)

    @property
    def sheet(self) -> tuple[Finding, ...]:
        return self.findings


class SeesPixels(Protocol):
    """What every comparison holds.

    levels: the largest difference of the file's pixels from the model's, picture by picture, of 255.  off: the share of
    pixels that differ at all.  batch: the largest difference between a picture alone and the same picture three times.
    """

    @property
    def levels(self) -> npt.NDArray[np.float64]: ...
    @property
    def off(self) -> float: ...
    @property
    def batch(self) -> float: ...


P = TypeVar("P", bound=SeesPixels, covariant=True)


@dataclass(frozen=True)
class Compared(Generic[P]):
    """All that was measured of one file.

    Args:
        precision: what was asked for: "fp32", "fp16", "int8".
        file: the file, open.
        parity: the answers of both.
        speeds: of the model and of the file; None where they were not measured.
        int8: how the 8-bit graph was chosen.
        layers: tensor by tensor, where the bars were missed.
        calibrated_on_these: whether the calibration pictures are these.
        bytes_before: size of the weights as they are.
    """

    precision: str
    file: WholeFile
    parity: P
    speeds: tuple[Speed, Speed] | None
    int8: Int8 | None
    layers: LayerGaps | None
    calibrated_on_these: bool
    bytes_before: int


def pixels_finding(c: Compared[P]) -> Finding:
    most = float(c.parity.levels.max())
    verdict: Verdict = "pass" if most <= 1 else "warn"
    if most > 2:
        verdict = "fail"
    return Finding(
        verdict,
        f"The pixels that the file makes of a picture lie within {most:.0f} of 255 of the model's; "
        f"{show(c.parity.off, 'share')} of the values differ at all.",
        quantity="levels of 255",
        value=most,
        n=len(c.parity.levels),
        unit="",
        has_bar=True,
        notes=("Held against 1 of 255, which is what rounding gives; 2 is undecided.",),
        check="preprocessing",
        summary="Does the file resize, cut and scale pictures as the model does?",
        advice="do not feed this file what another library has resized: it takes the picture as it is decoded",
    )


def precision_finding(c: Compared[P]) -> Finding:
    used, total = c.file.computes_in, sum(c.file.computes_in.values())
    parts = ", ".join(f"{n} in {kind}" for kind, n in sorted(used.items(), key=lambda kv: -kv[1])) or "unknown"
    asked = used.get(c.precision, 0)
    verdict: Verdict = "pass" if asked == total else "warn"
    if not total:
        verdict = "note"
    elif c.precision == "fp32" and not asked:
        verdict = "fail"
    size = f"{c.file.size / 1e6:.1f} MB, where the model's weights take {c.bytes_before / 1e6:.1f} MB"
    return Finding(
        verdict,
        f"Of {total} operations with weights {c.file.engine} computes {parts} on this machine. The file is {size}.",
        quantity=f"operations in {c.precision}",
        value=asked / total if total else None,
        n=total,
        has_bar=True,
        notes=("This is read from the graph that the engine runs, not from the one that it was given.",),
        check="precision",
        summary="What does the engine really compute in?",
        advice="measure on the machine that will run it: another has other operations",
    )


def speed_finding(case: AnyCase, c: Compared[P]) -> Finding | None:
    if c.speeds is None:
        return None
    model, file = c.speeds
    also = "; the file makes the heatmap too" if case.model.kind == "classifier" else ""
    rows: list[dict[str, Cell]] = [
        {"what": what, "median ms": 1000 * s.median, "99 % ms": 1000 * s.slow, "pictures per s": s.per_second}
        for what, s in ((f"the model on {case.model.device}", model), (f"the file in {c.file.engine}", file))
    ]
    return Finding(
        "note",
        f"A picture takes {1000 * file.median:.1f} ms in the file and {1000 * model.median:.1f} ms in the model "
        f"(median; {1000 * file.slow:.1f} and {1000 * model.slow:.1f} ms at 99 %).",
        quantity="times the model's latency",
        value=file.median / model.median,
        n=0,
        unit="",
        notes=(
            f"From a decoded picture to {_ANSWER[case.model.kind]}, with the preprocessing{also}. Both were asked in "
            "turn, with as many threads.",
        ),
        tables=(Table("Latency of one picture, and pictures per second in lots of eight", tuple(rows)),),
        check="speed",
        summary="How long does a picture take?",
    )


def layers_finding(c: Compared[P]) -> Finding | None:
    if c.layers is None:
        return None
    limit = _LAYER[c.precision]
    first = c.layers.first(limit)
    most = sorted(c.layers.steps(), key=lambda pair: -pair[1])[:12]
    rows: list[dict[str, Cell]] = [
        {"layer": g.layer or "–", "operation": g.operation, "error": g.error, "more than before": more}
        for g, more in most
    ]
    if first is None:
        words = f"No tensor is off by more than {show(limit, 'share')} of its norm."
    else:
        words = f"The first to disagree is {first.layer or first.tensor} ({first.operation}), off by "
        words += f"{show(first.error, 'share')} of its norm."
    return Finding(
        "note" if first is None else "fail",
        words,
        quantity="error of the first",
        value=None if first is None else first.error,
        n=c.layers.matched,
        notes=(c.layers.how,),
        tables=(Table("Where the error comes in", tuple(rows)),),
        check="first layer",
        summary="Which layer is the first to disagree?",
    )
