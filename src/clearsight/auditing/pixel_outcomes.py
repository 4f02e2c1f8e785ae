"""How well the classes of one picture's pixels are told, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from clearsight.evaluation.resampling import ratio
from clearsight.kinds.questions import BACKGROUND
from clearsight.reporting.findings import Cell


def own_mean_iou(pixels: NDArray[np.int64]) -> float:
    """The mean IoU of a picture by itself, over the classes that it or its answer shows; nan where none is judged.

    pixels: (3, K) those in both, of the truth, of the answer.

    >>> own_mean_iou(np.array([[2, 0], [4, 0], [2, 0]]))
    0.5
    """
    both, truth, said = np.asarray(pixels, dtype=np.float64)
    of_classes = ratio(both, truth + said - both)
    return float(np.nanmean(of_classes)) if truth.any() else float("nan")


def pixel_facts(picture: str, pixels: NDArray[np.int64], name: Callable[[int], str]) -> dict[str, Cell]:
    """A picture's row of a table: its own mean IoU, and what is most often missed and said wrongly.

    picture: its name.  pixels: (3, K) as in `own_mean_iou`.  name: of a class.
    """
    both, truth, said = pixels
    missed, made = truth - both, said - both
    return {
        "picture": picture,
        "mean IoU": own_mean_iou(pixels),
        "pixels right": float(both.sum() / truth.sum()),
        "most missed": name(int(missed.argmax())) if missed.any() else None,
        "most said wrongly": name(int(made.argmax())) if made.any() else None,
    }


def ground_of(labels: Sequence[str]) -> int | None:
    """The number of the class that is the background by its name; None without one.

    >>> ground_of(["sky", "Background"]), ground_of(["sky"])
    (1, None)
    """
    return next((k for k, label in enumerate(labels) if label.strip().lower() in BACKGROUND), None)
