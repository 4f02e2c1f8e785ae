"""Whether the pictures that come are distributed as the reference pictures were."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from clearsight.serving.backend import Floats
from clearsight.serving.outliers import Reference

LAST = 1000  # answers that are compared with the reference
BINS = 10


def population_stability_index(reference: Floats, now: Floats) -> float:
    """The PSI of two samples: the sum of (q - p) log(q / p) over ten bins that hold a tenth of the reference each.

    Half a count is added to every bin, so that an empty one gives a finite number.  By the usual rule of thumb below
    0.1 is no shift, and above 0.25 one that must be looked at.

    Source: Siddiqi 2006, Credit Risk Scorecards, chapter 8.

    >>> same = np.arange(100.0)
    >>> population_stability_index(same, same)
    0.0
    """
    edges = np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1])
    p, q = (np.bincount(np.searchsorted(edges, v, side="right"), minlength=BINS) + 0.5 for v in (reference, now))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def kolmogorov_smirnov(reference: Floats, now: Floats) -> float:
    """The largest distance between the distribution functions of two samples.

    Source: Kolmogorov 1933; Smirnov 1948, Annals of Mathematical Statistics 19.

    >>> kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.5
    """
    at = np.concatenate([reference, now])
    below = [np.searchsorted(np.sort(v), at, side="right") / len(v) for v in (reference, now)]
    return float(np.abs(below[0] - below[1]).max())


class Drift:
    """Compares the last 1,000 answers with the reference."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._lock = threading.Lock()
        self._confidences: deque[float] = deque(maxlen=LAST)
        self._scores: deque[float] = deque(maxlen=LAST)

    def note(self, confidences: Floats, scores: Floats) -> None:
        """Add answers."""
        with self._lock:
            self._confidences.extend(confidences.tolist())
            self._scores.extend(scores.tolist())

    def measure(self, name: str, of: str) -> float:
        """name: "psi" or "ks"; of: "confidence" or "outlier"; NaN before there are as many answers as bins."""
        with self._lock:
            now = np.array(self._confidences if of == "confidence" else self._scores)
        before = self._reference.confidences if of == "confidence" else self._reference.scores
        if len(now) < BINS:
            return float("nan")
        return population_stability_index(before, now) if name == "psi" else kolmogorov_smirnov(before, now)
