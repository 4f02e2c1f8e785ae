"""The report of a trained detector or segmenter: how it was trained, and how good it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clearsight.auditing.box_outcomes import SCORE
from clearsight.auditing.evidence import share, span
from clearsight.core.model import Model
from clearsight.core.progress import Progress
from clearsight.core.statistics import Interval
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.charts import Line
from clearsight.evaluation.average_precision import average_precision
from clearsight.evaluation.chance import dealt_at_random
from clearsight.evaluation.error_types import error_types
from clearsight.evaluation.intervals import precision_intervals
from clearsight.evaluation.records import BoxSet
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding, Table, Verdict
from clearsight.training.batches import Store
from clearsight.training.history import best_of
from clearsight.training.objects.history import ObjectEpoch
from clearsight.training.objects.learning import found_boxes, found_pixels
from clearsight.training.objects.run import ObjectRun
from clearsight.training.objects.worst import worst_of_boxes, worst_of_pixels

ERRORS = {
    "class": "of another class than the object under them",
    "place": "of the right class, too far beside the object",
    "both": "of another class, and beside the object",
    "duplicate": "second boxes of an object that has one",
    "background": "where there is no object",
    "missed": "objects that nothing finds",
}


@dataclass(frozen=True)
class Judged:
    """How well a model does on a part: the finding for the report, and the same numbers for programs."""

    finding: Finding
    numbers: dict[str, Any]


def judge(model: Model, run: ObjectRun, store: Store, part: str, progress: Progress) -> Judged:
    """How well the model does on a part of the data, in pixels of the pictures themselves, the worst ones drawn."""
    rows, pictures, batch = run.data.rows(part), run.data.pictures, run.recipe.batch
    if isinstance(model, Detector):
        boxes = found_boxes(model, store, pictures, rows, batch, progress)
        judged = _of_boxes(boxes, model.labels, run.recipe.seed, part)
        return _with_worst(judged, *worst_of_boxes(model, boxes, run.data, store, rows))
    assert isinstance(model, Segmenter)
    counts = found_pixels(model, store, pictures, rows, batch, progress)
    scores = counts.scores(run.recipe.seed)
    interval = scores.intervals["mean_iou"]
    table: list[dict[str, Cell]] = [
        {"class": name, "IoU": _known(scores.iou[k]), "Dice": _known(scores.dice[k]),
         "pixels right": _known(scores.accuracy[k]), "true pixels": int(scores.truth[k])}
        for k, name in enumerate(model.labels)
    ]  # fmt: skip
    table.sort(key=lambda row: row["true pixels"] == 0)  # those that the pictures show come first
    numbers = {
        "mean_iou": {"value": scores.mean_iou, "interval": interval, "n": scores.n},
        "pixel_accuracy": {
            "value": scores.pixel_accuracy, "interval": scores.intervals["pixel_accuracy"], "n": scores.n,
        },
        "classes": {row["class"]: row["IoU"] for row in table},
    }  # fmt: skip
    common = float(scores.truth.max() / max(scores.truth.sum(), 1)) / max(int((scores.truth > 0).sum()), 1)
    finding = Finding(
        verdict(interval, common),
        f"Mean IoU on {part} is {share(scores.mean_iou)} ({span(interval, scores.n)}); "
        f"{share(scores.pixel_accuracy)} of the pixels are right.",
        quantity="mean IoU",
        value=_known(scores.mean_iou),
        interval=interval,
        n=scores.n,
        unit="share",
        chance=common,
        has_bar=True,
        notes=(
            f"Asked for: more than the most frequent class everywhere would give, {share(common)}.",
            "One table of all pixels of all pictures gives IoU; its mean is over the classes that the truth or the "
            "model shows.  The interval is over draws of pictures.",
        ),
        tables=(Table("Classes", tuple(table)),),
        check="segmentation",
        summary="How much of the pixels of each class is right.",
    )
    return _with_worst(Judged(finding, numbers), *worst_of_pixels(model, counts, run.data, store, rows))


def _with_worst(judged: Judged, table: Table, drawn: tuple[Evidence, ...]) -> Judged:
    finding = replace(judged.finding, tables=(*judged.finding.tables, table), evidence=drawn)
    return Judged(finding, judged.numbers)


def verdict(interval: Interval | None, chance: float) -> Verdict:
    """Whether the whole interval lies above, or at and below, what knows nothing of the pictures; "warn" in between.

    >>> verdict((0.3, 0.8), 0.4), verdict((0.5, 0.8), 0.4), verdict((0.1, 0.4), 0.4), verdict(None, 0.4)
    ('warn', 'pass', 'fail', 'warn')
    """
    if interval is None or interval[0] <= chance < interval[1]:
        return "warn"
    return "pass" if interval[0] > chance else "fail"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _of_boxes(boxes: BoxSet, labels: Sequence[str], seed: int, part: str) -> Judged:
    """Average precision with its interval, of each class too, and which kinds of error cost how much of it."""
    found, spread = average_precision(boxes), precision_intervals(boxes, seed)
    errors = error_types(boxes)
    ap50, n = found.mean.ap50 or 0.0, found.pictures
    classes: list[dict[str, Cell]] = []
    for one in found.by_class:
        low, high = spread.ap50_by_class[one.label] or (None, None)
        classes.append(
            {"class": labels[one.label], "objects": one.truths, "boxes found": one.detections,
             "AP50": one.figures.ap50, "AP50, low": low, "AP50, high": high, "AP": one.figures.ap}
        )  # fmt: skip
    kinds: list[dict[str, Cell]] = [
        {"error": name, "what": what, "boxes": errors.counts[name], "AP50 that it costs": errors.costs[name]}
        for name, what in ERRORS.items()
    ]
    numbers = {
        "ap50": {"value": ap50, "interval": spread.ap50, "n": n},
        "ap": {"value": found.mean.ap, "interval": spread.ap, "n": n},
        "ap75": {"value": found.mean.ap75, "interval": spread.ap75, "n": n},
        "objects": found.truths,
        "classes": {labels[one.label]: one.figures.ap50 for one in found.by_class},
        "errors": {row["error"]: row["boxes"] for row in kinds},
    }
    unjudged = found.lines()[2:]
    chance = average_precision(dealt_at_random(boxes, seed)).mean.ap50 or 0.0
    finding = Finding(
        verdict(spread.ap50, chance),
        f"AP50 on {part} is {share(ap50)} ({span(spread.ap50, n)}), AP {share(found.mean.ap)}: "
        f"{counted(found.truths, 'object')}, {found.detections} boxes reported.",
        quantity="AP50",
        value=ap50,
        interval=spread.ap50,
        n=n,
        unit="share",
        chance=chance,
        has_bar=True,
        notes=(
            f"Asked for: more than the same boxes would give, dealt to pictures at random, {share(chance)}.",
            "AP50 is COCO's average precision at an IoU of 0.5, AP its mean over 0.5 to 0.95; the interval is over "
            "draws of pictures.",
            f"In the pictures and their table a box counts from a score of {SCORE:g} on.",
            *(f"{line[0].upper()}{line[1:]}." for line in unjudged),
        ),
        tables=(Table("Classes", tuple(classes)), Table("Kinds of error (TIDE), at an IoU of 0.5", tuple(kinds))),
        check="detection",
        summary="How many of the objects it finds, and what its errors are.",
    )
    return Judged(finding, numbers)


def training_finding(run: ObjectRun, why: Sequence[str], judged: str, command: str) -> Finding:
    """The finding on the run itself: the curves, which epoch is kept, and what was chosen."""
    history = run.history
    best = best_of(history)
    chose = (
        "Val chose the epoch, so its numbers are optimistic; test chose nothing."
        if judged == "test"
        else "Val chose the epoch, and there is no test, so all of these numbers are optimistic."
    )
    return Finding(
        "note",
        f"Epoch {best.number} of {history[-1].number} is kept, the one with the highest {best.measure} on val: "
        f"{share(best.score)} (n = {best.val_n}).",
        quantity=f"{best.measure} on val",
        value=best.score,
        n=best.val_n,
        unit="share",
        notes=(chose, *(f"{w[0].upper()}{w[1:]}." for w in run.data.notes), *(f"{w}." for w in why)),
        tables=(Table("Epochs", tuple(_row(e) for e in history)),),
        figures=_curves(history),
        check="training",
        summary="How it was trained, and which epoch is kept.",
        command=command,
        seconds=round(sum(e.seconds for e in history), 3),
    )


def _row(e: ObjectEpoch) -> dict[str, Cell]:
    return {
        "epoch": e.number,
        "loss": e.loss,
        f"{e.measure} on val": e.score,
        "learning rate": e.rate,
        "seconds": round(e.seconds, 1),
        "best so far": "yes" if e.best else "",
    }


def _curves(history: Sequence[ObjectEpoch]) -> tuple[Figure, ...]:
    """The curves of loss and score over the epochs; none for a single epoch."""
    if len(history) < 2:
        return ()
    x = [float(e.number) for e in history]
    ticks = [(v, f"{v:.0f}") for v in x[:: -(-len(x) // 10)]]
    first, last, measure = history[0], history[-1], history[0].measure
    over = counted(last.number, "epoch")
    loss, scores = [Line("train", [e.loss for e in history])], [Line("val", [e.score for e in history])]
    return (
        Figure(
            "training-loss.svg",
            charts.curves(x, loss, xlabel="epoch", ylabel="loss on train", xticks=ticks, shares=False),
            "Loss on train, with augmentation.",
            f"Loss over {over}: from {first.loss:.2f} to {last.loss:.2f}.",
        ),
        Figure(
            "training-score.svg",
            charts.curves(x, scores, xlabel="epoch", ylabel=f"{measure} on val", xticks=ticks),
            f"{measure} on val.",
            f"{measure} on val over {over}: from {share(first.score)} to {share(last.score)}.",
        ),
    )
