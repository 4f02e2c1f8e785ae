"""Statistics over runs: the spread of values, and whether they differ by more than chance allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from clearsight.core.statistics import Interval
from clearsight.reporting.wording import show, show_range

EXPECTED = 5.0  # pictures of either kind in every run, from which on the chi-square approximation is trusted


@dataclass(frozen=True)
class Homogeneity:
    """Pearson's chi-square test that all runs have the same share.

    expected: the least number of pictures that a cell of the table would hold; below five p is a rough guide.
    """

    statistic: float
    freedom: int
    p: float
    expected: float


def homogeneity(right: Sequence[int], n: Sequence[int]) -> Homogeneity:
    """Whether shares right[i] / n[i] differ by more than chance: Pearson 1900, doi:10.1080/14786440009463897.

    Of 8 and 4 right in 10 each, 6 and 4 are expected in both: 4/6 + 4/6 + 4/4 + 4/4.  Where all are right, or none,
    nothing differs and p is 1.

    >>> h = homogeneity([8, 4], [10, 10])
    >>> round(h.statistic, 3), h.freedom, round(h.p, 3), h.expected
    (3.333, 1, 0.068, 4.0)
    """
    table = np.array([right, [m - k for k, m in zip(right, n, strict=True)]])
    if not table.sum(1).all():
        return Homogeneity(0.0, len(n) - 1, 1.0, 0.0)
    result = stats.chi2_contingency(table, correction=False)
    return Homogeneity(
        float(result.statistic), int(result.dof), float(result.pvalue), float(result.expected_freq.min())
    )


def between(values: Sequence[float], unit: str) -> str:
    """From the lowest to the highest, in words.

    >>> between([0.978, 0.5, 0.989], "share"), between([2.0, 2.0], "")
    ('50.0 to 98.9 %', '2')
    """
    low, high = show(min(values), unit), show(max(values), unit)
    return high if low == high else show_range(min(values), max(values), unit)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of what the values are a sample of (n - 1); 0 for one.

    >>> deviation([1.0, 3.0])
    1.4142135623730951
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def median_interval(values: Sequence[float]) -> Interval | None:
    """The interval for the median that two of the values bound, in at least 95 of 100 samples; None for fewer than six.

    It misses where too few lie on one side, which a coin decides for each (Conover 1999, Practical Nonparametric
    Statistics, section 3.2).

    >>> median_interval([1, 2, 3, 4, 5, 6]), median_interval([1, 2, 3, 4, 5])
    ((1.0, 6.0), None)
    """
    ordered = sorted(map(float, values))
    j = int(stats.binom.ppf(0.025, len(ordered), 0.5))
    return (ordered[j - 1], ordered[-j]) if j else None
