"""Similarity of two maps: rank correlation, and structural similarity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clearsight.core.sorting import ascending

Map = npt.NDArray[np.float64]


def alike(before: Map, after: Map) -> tuple[float, float, float]:
    """|Spearman| of two maps (*S), |Spearman| of their magnitudes, SSIM; 0 where the second is constant."""
    if constant(after):
        return (0.0, 0.0, 0.0)
    magnitudes = abs(spearman(np.abs(before), np.abs(after)))
    return (
        abs(spearman(before, after)),
        magnitudes,
        ssim(before / np.abs(before).max(), after / np.abs(after).max()),
    )


def constant(m: Map) -> bool:
    return bool(m.min() == m.max())


def spearman(a: Map, b: Map) -> float:
    """Ties share their mean rank; 0 where one of the two is constant."""
    return pearson(average_ranks(a), average_ranks(b))


def average_ranks(values: Map) -> Map:
    """The ranks (N,) of all values (*S), from 1, where ties share their mean rank and nan has none: nan.

    As ``scipy.stats.rankdata``, whose import alone takes as long as a hundred maps.

    >>> average_ranks(np.array([3.0, 1.0, 3.0, np.nan]))
    array([2.5, 1. , 2.5, nan])
    """
    flat = values.ravel()
    order = ascending(flat)
    steps = np.flatnonzero(np.diff(flat[order])) + 1  # where equal ones end
    ends = np.concatenate([[0], steps, [len(flat)]])
    ranks: Map = np.empty(len(flat))
    ranks[order] = np.repeat((ends[:-1] + ends[1:] + 1) / 2, np.diff(ends))
    return np.where(np.isnan(flat), np.nan, ranks)


def pearson(a: Map, b: Map) -> float:
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size else 0.0


def ssim(a: Map, b: Map) -> float:
    """Windows of 7 places, fewer where the map is smaller; nan below 3."""
    window = min(7, *a.shape)
    window -= 1 - window % 2
    if window < 3:
        return float("nan")
    from skimage.metrics import structural_similarity  # a third of a second, for what compares maps alone

    data_range = max(a.max(), b.max()) - min(a.min(), b.min())
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            a, b, win_size=window, data_range=data_range
        )
    )
