"""Several models side by side: size, speed and, where pictures are given, accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from clearsight.auditing.case import Case
from clearsight.core.classifier import classifier_of
from clearsight.core.model import Model
from clearsight.core.progress import Progress
from clearsight.core.statistics import Interval, wilson
from clearsight.engines.facts import facts_of, gives_scores_alone
from clearsight.errors import Refused
from clearsight.inspecting.layer_table import LayerTable, layer_table, memory, short_number
from clearsight.models.dry_run import probes, reason

if TYPE_CHECKING:
    from clearsight.data.datasets import Pictures

BATCHES = (1, 16)
FEWEST, ENOUGH = 3, 50  # rounds of timing: at least, and at most


@dataclass(frozen=True)
class Speed:
    """Milliseconds per picture at one batch size: the median of the runs, and their quartiles."""

    batch: int
    median: float
    quartiles: tuple[float, float]
    runs: int


@dataclass(frozen=True)
class Compared:
    """The measurements of one model.  macs and kept (bytes of all outputs, float32): for one picture, None if it fails.

    size: bytes of a file with its weights and buffers as float32; of an exported file its own.  What lies inside an
    exported file where nobody counts it is None: the outputs of a program, and all but size of what an engine runs.
    accuracy: the share of ``labelled`` pictures whose
    top class is acceptable, with its 95 % interval; None without.  unknown: some of its multiply-adds are not known,
    and not counted.  trouble: a sentence on each measurement that is missing.
    """

    source: str
    parameters: int | None
    size: int
    macs: int | None
    unknown: bool
    kept: int | None
    speeds: tuple[Speed, ...]
    accuracy: float | None
    interval: Interval | None
    labelled: int
    pictures: int
    trouble: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Models in the order given, and where their speed was measured."""

    models: tuple[Compared, ...]
    measured: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The table for the terminal: a row for each model, a column for each measurement."""
        with_accuracy = any(m.accuracy is not None for m in self.models)
        head = ["model", "parameters", "on disk", "multiply-adds", "memory", *(f"ms at {b}" for b in BATCHES)]
        rows = [head + (["top-1", "95 %", "n"] if with_accuracy else [])]
        for m in self.models:
            speeds = {s.batch: s for s in m.speeds}
            row = [m.source or "model", "-" if m.parameters is None else f"{m.parameters:,}", f"{m.size / 1e6:.1f} MB"]
            at_least = "over " if m.unknown else ""
            row += ["-" if m.macs is None else at_least + short_number(m.macs)]
            row += ["-" if m.kept is None else memory(m.kept)]
            row += [_speed(speeds[b]) if b in speeds else "-" for b in BATCHES]
            rows.append(row + (_accuracy(m) if with_accuracy else []))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(v.ljust(w) if i == 0 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines += ["", f"ms per picture, median (quartiles) of runs taken in turn; {self.measured}"]
        return [*lines, *(f"{m.source or 'model'}: {t}" for m in self.models for t in m.trouble)]


def compare_models(
    models: Sequence[Model],
    pictures: Pictures | None,
    *,
    seconds: float = 10.0,
    progress: Progress | None = None,
) -> Comparison:
    """Measure models side by side.  What fails for one of them becomes a note on it, and the others go on.

    Each model is judged by its own labels: a picture counts as right where the top class is one that its label means.
    Speed: the models take turns, batch by batch, for so many seconds together and at least three rounds, so that what
    else the machine does slows all alike.  Refused: no models, models of several kinds, or a time that is not above 0.
    """
    if not models:
        raise Refused("no models to compare: name two or more")
    kinds = sorted({model.kind for model in models})
    if len(kinds) > 1:
        raise Refused(
            f"{' and '.join(f'a {kind}' for kind in kinds)} have nothing to compare",
            "name models of one kind, or inspect them one by one",
        )
    if not seconds > 0:
        raise Refused(f"seconds={seconds:g}: give a time above 0")
    tell: Progress = progress or (lambda what, done, total: None)
    trouble: list[list[str]] = [[] for _ in models]
    tables: list[LayerTable | None] = []
    for model, troubles in zip(models, trouble, strict=True):
        try:
            tables.append(layer_table(model))
        except (Refused, RuntimeError) as e:
            tables.append(None)
            troubles.append(_error_sentence(e))
    running = [i for i, t in enumerate(tables) if t is not None]
    speeds = _measure_speed({i: models[i] for i in running}, seconds, trouble)
    compared = []
    for i, (model, table) in enumerate(zip(models, tables, strict=True)):
        correct, labelled, readable = 0, 0, 0
        if pictures is not None and table is not None:
            try:
                correct, labelled, readable, notes = _measure_accuracy(model, pictures, tell)
                trouble[i] += notes
            except (Refused, RuntimeError) as e:
                trouble[i].append(_error_sentence(e))
        facts, closed = facts_of(model.net), gives_scores_alone(model.net)
        open_layers = table is not None and (facts is None or facts.converted)
        compared.append(
            Compared(
                source=model.source,
                parameters=None if closed else sum(p.numel() for p in model.net.parameters() if not is_lazy(p)),
                size=size_on_disk(model) if facts is None else facts.size,
                macs=None if table is None or closed else table.total_macs,
                unknown=table is not None and bool(table.unknown),
                kept=table.total_kept if table is not None and open_layers else None,
                speeds=speeds.get(i, ()),
                accuracy=correct / labelled if labelled else None,
                interval=wilson(correct, labelled) if labelled else None,
                labelled=labelled,
                pictures=readable,
                trouble=tuple(trouble[i]),
            )
        )
    return Comparison(tuple(compared), _measured_on(models))


def _error_sentence(e: Exception) -> str:
    return shorten(str(e), 300, placeholder=" ...") if isinstance(e, Refused) else reason(e)


def size_on_disk(model: Model) -> int:
    """Bytes of a file with all weights and buffers; what two layers share is written once, floats as float32."""
    tensors = [t for t in (*model.net.parameters(), *model.net.buffers()) if not is_lazy(t)]  # each of them once
    return sum(t.numel() * (4 if t.is_floating_point() else t.itemsize) for t in tensors)


def _measure_accuracy(given: Model, pictures: Pictures, tell: Progress) -> tuple[int, int, int, tuple[str, ...]]:
    """Numbers of pictures that are right, labelled and readable; and notes if the model was trained on some."""
    model = classifier_of(given, "accuracy")
    if not model.one_of_many:
        raise Refused(f"its scores are {model.scores}, so it has no top class and no accuracy")
    case = Case(model, pictures, progress=tell)
    if not case.labelled:
        raise Refused("none of the pictures has a label: give labelled pictures to measure accuracy")
    return int(case.right[case.labelled].sum()), len(case.labelled), len(case.pictures), case.learned


def _measure_speed(models: dict[int, Model], seconds: float, trouble: list[list[str]]) -> dict[int, tuple[Speed, ...]]:
    """Time rounds in which every model runs once at every batch size; the first round only warms up."""
    inputs = {
        (i, b): probes(m)[:1].repeat(b, *[1] * (1 + len(m.preprocess.size))) for i, m in models.items() for b in BATCHES
    }
    times: dict[tuple[int, int], list[float]] = {key: [] for key in inputs}
    began, rounds = time.perf_counter(), 0
    while inputs and (rounds <= FEWEST or (time.perf_counter() - began < seconds and rounds <= ENOUGH)):
        for (i, b), x in list(inputs.items()):
            try:
                duration = time_once(models[i], x)
            except (Refused, RuntimeError) as e:
                trouble[i].append(f"at batch {b}: {_error_sentence(e)}")
                del inputs[i, b]
                continue
            if rounds:
                times[i, b].append(1000 * duration / b)
        rounds += 1
    speeds: dict[int, list[Speed]] = {i: [] for i in models}
    for (i, b), values in times.items():
        if values and (i, b) in inputs:
            low, high = np.percentile(values, (25, 75))
            speeds[i].append(Speed(b, statistics.median(values), (float(low), float(high)), len(values)))
    return {i: tuple(s) for i, s in speeds.items()}


def time_once(model: Model, x: Tensor) -> float:
    """Seconds for one run, with what a GPU still has to do."""
    with model.undisturbed(), torch.no_grad():
        _synchronise(x)
        began = time.perf_counter()
        model(x)
        _synchronise(x)
        return time.perf_counter() - began


def _synchronise(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    elif x.device.type == "mps":
        torch.mps.synchronize()


def _measured_on(models: Sequence[Model]) -> str:
    devices = sorted({str(m.device) for m in models})
    threads = torch.get_num_threads()
    return f"on {' and '.join(devices)}, {threads} {'thread' if threads == 1 else 'threads'}"


def _speed(s: Speed) -> str:
    low, high = s.quartiles
    digits = 2 if s.median < 10 else 1
    if s.median < 1:
        digits = 3
    return f"{s.median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _accuracy(m: Compared) -> list[str]:
    if m.accuracy is None or m.interval is None:
        return ["-", "-", "-"]
    low, high = m.interval
    return [f"{100 * m.accuracy:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %", str(m.labelled)]
