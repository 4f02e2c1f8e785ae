"""What it costs to evaluate the boxes of 5,000 pictures, beside pycocotools, and that both say the same.

python benchmarks/box_evaluation.py   writes benchmarks/box_evaluation.md

Both start from the same records in memory and end with AP and AR of all classes and sizes.  They take turns, and what
is measured is processor time of this process, all threads together, so that other work on the machine hardly shows.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clearsight.evaluation.average_precision import THRESHOLDS, average_precision
from clearsight.evaluation.box_calibration import box_calibration
from clearsight.evaluation.curves import by_class
from clearsight.evaluation.error_types import error_types
from clearsight.evaluation.intervals import precision_intervals
from clearsight.evaluation.matching import match
from clearsight.evaluation.records import BoxSet, PictureBoxes, box_set, picture_boxes
from clearsight.evaluation.voc_precision import voc_precision

OUT = Path(__file__).with_suffix(".md")
PICTURES, ROUNDS = 5000, 2
SETS = {"80 classes": (80, 36), "3 classes": (3, 36)}  # and boxes found in a picture


def made_up(classes: int, detections: int) -> list[PictureBoxes]:
    """As many objects and sizes as COCO has; half of the boxes lie near an object, and most of those have its class."""
    rng = np.random.default_rng(0)
    often = np.arange(classes, 0, -1) / (classes * (classes + 1) / 2)

    def some(n: int) -> np.ndarray:
        corner = rng.uniform(0, 400, (n, 2))
        return np.concatenate([corner, corner + np.exp(rng.normal(4, 0.9, (n, 2)))], axis=1)

    found = []
    for _ in range(PICTURES):
        truth = some(rng.poisson(7.3))
        labels = rng.choice(classes, len(truth), p=often)
        boxes = some(rng.poisson(detections))
        told = rng.integers(0, classes, len(boxes))
        if len(truth):
            near = np.flatnonzero(rng.random(len(boxes)) < 0.5)
            which = rng.integers(0, len(truth), len(near))
            sizes = np.tile(truth[which, 2:] - truth[which, :2], 2)
            moved = truth[which] + rng.normal(0, 0.08, sizes.shape) * sizes
            boxes[near] = np.concatenate([moved[:, :2], np.maximum(moved[:, 2:], moved[:, :2] + 1)], axis=1)
            right = rng.random(len(near)) < 0.85
            told[near[right]] = labels[which[right]]
        crowd = rng.random(len(truth)) < 0.01
        found.append(picture_boxes(boxes, rng.random(len(boxes)), told, truth, labels, crowd))
    return found


def xywh(boxes: np.ndarray) -> list[list[float]]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def pycocotools(pictures: list[PictureBoxes], classes: int) -> list[float]:
    """AP, AP50, AP75 ... of the same records by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for p, one in enumerate(pictures):
        size = np.concatenate(
            [one.truth_boxes[:, :2], one.truth_boxes[:, 2:] - one.truth_boxes[:, :2]], axis=1
        ).tolist()
        columns = zip(size, one.truth_labels.tolist(), one.crowd.tolist(), one.area.tolist(), strict=True)
        for box, label, crowd, area in columns:
            known = {"id": len(truth) + 1, "image_id": p, "category_id": label, "bbox": box}
            truth.append(known | {"iscrowd": int(crowd), "area": area})
        size = xywh(one.boxes)
        for box, label, score in zip(size, one.labels.tolist(), one.scores.tolist(), strict=True):
            found.append({"image_id": p, "category_id": label, "bbox": box, "score": score})
    data = COCO()
    data.dataset = {"images": [{"id": p} for p in range(len(pictures))], "annotations": truth}
    data.dataset["categories"] = [{"id": k} for k in range(classes)]
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def compared(classes: int, detections: int) -> tuple[str, BoxSet]:
    """A row of the table: seconds of both, the ratio in each round, and how far the figures lie apart."""
    pictures = made_up(classes, detections)
    ours, theirs, apart = [], [], 0.0
    for _ in range(ROUNDS):
        seconds, found = timed(lambda: average_precision(box_set(pictures, range(classes))))
        ours.append(seconds)
        seconds, wanted = timed(lambda: pycocotools(pictures, classes))
        theirs.append(seconds)
        m = found.mean
        figures = [m.ap, m.ap50, m.ap75, m.ap_small, m.ap_medium, m.ap_large, *m.ar_by_most.values()]
        figures += [m.ar_small, m.ar_medium, m.ar_large]
        apart = max(apart, float(np.abs(np.array(figures) - wanted).max()))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    boxes = box_set(pictures, range(classes))
    cells = [
        f"{len(boxes.scores):,}",
        f"{statistics.mean(theirs):.1f}",
        f"{statistics.mean(ours):.1f}",
        f"{min(ratios):.1f} to {max(ratios):.1f}",
        f"{apart:.0e}",
    ]
    return " | ".join(cells), boxes


def main() -> None:
    lines = [
        "# What it costs to evaluate boxes",
        "",
        f"Made by `python benchmarks/box_evaluation.py`: {PICTURES:,} made-up pictures with as many objects as COCO's; "
        f"seconds of processor time of this process, the mean of {ROUNDS} rounds in which both took turns, from "
        "records in memory to AP and AR of all classes and sizes. `cs` is `average_precision`.",
        "",
        "| pictures of | boxes found | pycocotools, s | cs, s | times as fast | figures apart by |",
        "|---|---|---|---|---|---|",
    ]
    first: BoxSet | None = None
    for name, (classes, detections) in SETS.items():
        row, boxes = compared(classes, detections)
        first = first or boxes
        lines.append(f"| {name} | {row} |")
        print(lines[-1], flush=True)
    assert first is not None
    calls: dict[str, Callable[[], Any]] = {
        "who is matched with whom, at ten IoUs": lambda: match(first, THRESHOLDS),
        "those matches, and AP over all sizes from them": lambda: by_class(first, match(first, THRESHOLDS)),
        "`precision_intervals`, 300 drawn sets": lambda: precision_intervals(first),
        "`error_types`": lambda: error_types(first),
        "`box_calibration`": lambda: box_calibration(first),
        "`voc_precision`": lambda: voc_precision(first),
    }
    lines += ["", "What else there is to know of the first set:", "", "| figure | s |", "|---|---|"]
    for name, call in calls.items():
        seconds = statistics.mean(timed(call)[0] for _ in range(ROUNDS))
        lines.append(f"| {name} | {seconds:.2f} |")
        print(lines[-1], flush=True)
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
