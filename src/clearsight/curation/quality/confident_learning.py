"""Likely label errors by confident learning: Northcutt, Jiang & Chuang 2021, arXiv:1911.00068."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clearsight.errors import Refused

Whole = NDArray[np.int64]


def label_errors(chances: ArrayLike, given: ArrayLike, *, fewest: int = 1) -> tuple[Whole, Whole]:
    """(rows, classes): the pictures that are likely filed wrongly, the surest first, and what each looks like.

    chances (N, K): probabilities by a model that has not learned from these pictures; given (N,): their labels.  A
    picture counts as of class j where its probability of j reaches t_j, the mean probability of j over the pictures
    labelled j; of several such classes the most probable one.  It is suspected where that is not its label, and is more
    probable than its label.  Ranked by the normalised margin, the probability of the label less that of the most
    probable other class.  fewest: a class with fewer labelled pictures, whose t_j rests on next to nothing, is never
    suspected.  Refused: chances that are none, labels outside 0 to K - 1.

    >>> p = [[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]]
    >>> [v.tolist() for v in label_errors(p, [0, 0, 0, 1, 1])]
    [[2], [1]]
    """
    p, y = _validate(chances, given)
    likely, indices = _confident_classes(p, y, fewest), np.arange(len(p))
    rows = np.flatnonzero((likely >= 0) & (likely != y) & (p[indices, likely] > p[indices, y]))
    of_label = p[rows, y[rows]]
    others = p[rows].copy()
    others[np.arange(len(rows)), y[rows]] = -1
    order = np.argsort(of_label - others.max(1), kind="stable") if len(rows) else np.arange(0)
    return rows[order], likely[rows[order]]


def _confident_classes(p: NDArray[np.float64], y: Whole, fewest: int) -> Whole:
    """(N,) the class that each picture confidently looks like, -1 for none."""
    classes = range(p.shape[1])
    bar = np.array([p[y == j, j].mean() if (y == j).sum() >= max(fewest, 1) else np.inf for j in classes])
    sure = np.where(p >= bar - 1e-12, p, -1)
    return np.where(sure.max(1) >= 0, sure.argmax(1), -1)


def _validate(chances: ArrayLike, given: ArrayLike) -> tuple[NDArray[np.float64], Whole]:
    p, y = np.asarray(chances, dtype=np.float64), np.asarray(given)
    if p.ndim != 2 or not len(p) or not np.isfinite(p).all() or p.min() < 0 or p.max() > 1 + 1e-6:
        raise Refused(
            f"chances of shape {p.shape}: one row for each picture of probabilities from 0 to 1, one per class"
        )
    if y.shape != (len(p),) or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise Refused(
            f"labels of shape {y.shape}: one whole number from 0 to {p.shape[1] - 1} for each of {len(p)} rows"
        )
    return p, y.astype(np.int64)
