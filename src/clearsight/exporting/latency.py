"""How long a picture takes in the model and in its file, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from clearsight.auditing.assemble import AnyCase
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.data.images import open_picture, to_pixels
from clearsight.exporting.parity import decoded
from clearsight.exporting.whole_file import WholeFile
from clearsight.kinds.detector import Detector

_ROUNDS = 30
_SECONDS = 20.0  # after which no further round is begun
_LOT = 8  # pictures at once, for the throughput


@dataclass(frozen=True)
class Speed:
    """Seconds of one picture at the median and at the 99th percentile, and pictures per second in lots of eight."""

    median: float
    slow: float
    per_second: float


def measure(case: AnyCase, file: WholeFile) -> tuple[Speed, Speed]:
    """Of the model and of its file: from a decoded picture to its answer, each with its own preprocessing.

    Both are asked in turn, so that what else the machine does slows both.
    """
    pictures = [case.pictures[i] for i in case.sample(range(len(case.pictures)), _LOT)]
    images = [open_picture(p.path) for p in pictures]
    arrays = [decoded(p, case.model)[None] for p in pictures]
    lot = np.repeat(arrays[0], _LOT, 0)
    ways: list[tuple[Callable[[int], object], Callable[[], object]]] = [
        (lambda i: _asked(case.model, [images[i]]), lambda: _asked(case.model, [images[0]] * _LOT)),
        (lambda i: file.run(arrays[i]), lambda: file.run(lot)),
    ]
    ones: list[list[float]] = [[], []]
    lots: list[list[float]] = [[], []]
    began = time.perf_counter()
    for k in range(_ROUNDS + 1):  # the first is a warm-up
        if time.perf_counter() - began > _SECONDS and k > 2:
            break
        for way, (one, many) in enumerate(ways):
            ones[way].append(_timed(lambda one=one, k=k: one(k % len(images))))  # type: ignore[misc]
            if k % 5 == 0:
                lots[way].append(_timed(many))
    model, of_file = (
        Speed(float(np.median(one[1:])), float(np.percentile(one[1:], 99)), _LOT / float(np.median(many[-5:])))
        for one, many in zip(ones, lots, strict=True)
    )
    return model, of_file


def _asked(model: Model, images: list[Image.Image]) -> object:
    """What the model says: probabilities, boxes, or the class of each pixel."""
    x = torch.stack([to_pixels(image, model.preprocess) for image in images]).to(model.device)
    with torch.inference_mode():
        outputs = model.from_normalised(model.normalised(x))
        if isinstance(model, Classifier):
            return model.chances(outputs).cpu()
        return model.detections(outputs) if isinstance(model, Detector) else outputs.argmax(1).cpu()


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
