"""Intervals of scores that are no means over pictures: pictures are drawn again and their counts are summed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clearsight.core.statistics import FEWEST, Interval, tails

Counts = NDArray[np.float64]
_AT_ONCE = 2**22  # numbers of drawn counts that are held at once


def interval_over_pictures(
    rows: Counts, score: Callable[[Counts], Counts], seed: int = 0, draws: int = 2000, *, shares: bool = True
) -> list[Interval | None]:
    """The 95 % percentile intervals of scores of summed counts, over draws of as many pictures (Efron 1979); seeded.

    A mean over classes is biased in the draws, because rare classes, which are often the hard ones, drop out of some.
    So the percentiles are moved by that bias, back to where the mean of the draws is the score itself, and cut off at 0
    and 1.  In 160 made-up sets of 12 or 50 pictures and 4 or 15 classes such intervals held the expected mean IoU in 89
    to 95 % of cases, pixel accuracy in 89 to 96 %.

    Args:
        rows: (n, ...) counts of each picture.
        score: sums of counts (draws, ...) -> scores (draws, m), nan where a score is undefined for what was drawn.
        seed: start of the draws.
        draws: number of draws.
        shares: whether scores are shares, 0 to 1, whose percentiles are moved; otherwise they stay as they are.

    Returns m intervals; None for fewer than seven pictures, as in ``core.statistics.bootstrap``, and where a score is
    undefined for all pictures or for every draw.

    Source: Efron 1979, doi:10.1214/aos/1176344552; the percentiles of few pictures are widened as by Hesterberg 2015.

    >>> shares = np.array([[k, 10.0] for k in range(11)])
    >>> [interval] = interval_over_pictures(shares, lambda s: s[:, :1] / s[:, 1:])
    >>> [round(v, 1) for v in interval]
    [0.3, 0.7]
    """
    n = len(rows)
    if n < FEWEST:
        width = score(rows.sum(0)[None] if n else np.zeros((1, *rows.shape[1:]))).shape[1]
        return [None] * width
    rng = np.random.default_rng(seed)
    flat = rows.reshape(n, -1)
    step = max(1, _AT_ONCE // max(n, flat.shape[1]))
    scores = []
    for start in range(0, draws, step):
        times = rng.multinomial(n, np.full(n, 1 / n), min(step, draws - start)).astype(np.float64)
        scores.append(score((times @ flat).reshape(len(times), *rows.shape[1:])))
    figures = score(rows.sum(0)[None])[0]
    columns = zip(figures, np.concatenate(scores).T, strict=True)
    return [percentiles(float(figure), column, n, shares=shares) for figure, column in columns]


def percentiles(figure: float, draws: Counts, n: int, *, shares: bool = True) -> Interval | None:
    """The 95 % percentiles of a score over draws of n pictures, moved to where their mean is the score itself.

    figure: the score of the pictures as they are.  draws: (R,) those of the draws, nan where there is none.  shares:
    whether scores are shares, which are moved and cut off at 0 and 1; others stay as they are.

    None for fewer than seven pictures, and where the score or all of its draws are undefined.

    >>> [round(v, 2) for v in percentiles(0.4, np.linspace(0.3, 0.7, 101), 10**6)]
    [0.21, 0.59]
    """
    defined = draws[~np.isnan(draws)]
    if n < FEWEST or np.isnan(figure) or not len(defined):
        return None
    bounds = np.percentile(defined, tails(n))
    low, high = np.clip(bounds + figure - defined.mean(), 0, 1) if shares else bounds
    return float(low), float(high)


def mean_of_defined(values: Counts) -> Counts:
    """The mean over the last axis without nan, (...); nan where all are."""
    defined = ~np.isnan(values)
    n = defined.sum(-1)
    return np.where(n > 0, np.where(defined, values, 0).sum(-1) / np.maximum(n, 1), np.nan)


def ratio(part: Counts, whole: Counts) -> Counts:
    """Part by whole; nan where the whole is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
