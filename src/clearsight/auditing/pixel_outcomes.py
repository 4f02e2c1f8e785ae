"""How well the classes of one picture's pixels are told, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from clearsight.evaluation.pixels import iou_by_picture
from clearsight.kinds.questions import BACKGROUND
from clearsight.reporting.findings import Cell


def pixel_facts(picture: str, pixels: NDArray[np.int64], name: Callable[[int], str]) -> dict[str, Cell]:
    """A picture's row of a table: its own mean IoU, and what is most often missed and said wrongly.

    picture: its name.  pixels: (3, K) those of each class in both, in the truth, in the answer.
    name: of a class.
    """
    both, truth, said = pixels
    missed, made = truth - both, said - both
    return {
        "picture": picture,
        "mean IoU": float(iou_by_picture(pixels[None])[0]),
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
