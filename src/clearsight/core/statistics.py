"""Confidence intervals, and judgements of an interval against a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Judgement = Literal["pass", "warn", "fail"]
Interval = tuple[float, float]
FEWEST = 7  # values for an interval by drawing from them
_DRAWN = 2**18  # values that are drawn at once


def wilson(right: int, n: int, z: float = 1.959963984540054) -> Interval:
    """The 95 % score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    >>> [round(v, 4) for v in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if n == 0:
        return (0.0, 1.0)
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (0.0 if right == 0 else max(0.0, middle - half), 1.0 if right == n else min(1.0, middle + half))


def clopper_pearson_lower(right: int, n: int, alpha: float) -> float:
    """The exact lower bound of a share that is too high with a probability of at most alpha, one-sided.

    Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404: the quantile alpha of the beta distribution with the
    parameters right and n - right + 1.

    Where all are right it is the n-th root of alpha:

    >>> round(clopper_pearson_lower(10, 10, 0.05), 6), round(0.05 ** (1 / 10), 6)
    (0.741134, 0.741134)
    """
    from scipy import special  # a fifth of a second, which what asks for no such bound does not wait for

    return float(special.betaincinv(right, n - right + 1, alpha)) if right else 0.0


def clopper_pearson(right: int, n: int) -> Interval:
    """The exact 95 % interval of a share: Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404.

    >>> [round(v, 4) for v in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """
    from scipy import special  # a fifth of a second, which what asks for no interval does not wait for

    low = float(special.betaincinv(right, n - right + 1, 0.025)) if right else 0.0
    high = float(special.betaincinv(right + 1, n - right, 0.975)) if right < n else 1.0
    return low, high


def normal_quantile(p: float) -> float:
    """The quantile of the standard normal distribution.

    >>> round(normal_quantile(0.975), 4)
    1.96
    """
    from scipy import special

    return float(special.ndtri(p))


def apart(one: tuple[int, int], other: tuple[int, int]) -> Interval:
    """The 95 % interval of the difference of two shares, (right, n) each: Newcombe 1998, method 10, of score intervals.

    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I

    >>> [round(v, 4) for v in apart((56, 70), (48, 80))]
    [0.0524, 0.3339]
    """
    (a, n), (b, m) = one, other
    p, q = a / n if n else 0.5, b / m if m else 0.5
    (low, high), (under, over) = wilson(a, n), wilson(b, m)
    return (
        max(-1.0, p - q - ((p - low) ** 2 + (over - q) ** 2) ** 0.5),
        min(1.0, p - q + ((high - p) ** 2 + (q - under) ** 2) ** 0.5),
    )


def paired_gap(both: int, gained: int, lost: int, neither: int) -> Interval:
    """The 95 % interval of the difference of two shares of the same pictures: Newcombe 1998, method 10 for paired data.

    Of the pictures so many are right in both runs, only in the second (gained), only in the first (lost), and in
    neither; the difference is (gained - lost) / n.  Two score intervals are joined by the correlation of the answers.
    doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C

    Refused: no pictures at all, by ValueError.

    >>> [round(v, 4) for v in paired_gap(20, 12, 2, 16)]
    [0.0562, 0.3292]
    """
    n = both + gained + lost + neither
    if n == 0:
        raise ValueError("paired_gap needs a picture")
    second, first = both + gained, both + lost
    p, q = second / n, first / n
    (low, high), (under, over) = wilson(second, n), wilson(first, n)
    product = both * neither - gained * lost
    corrected = max(product - n / 2, 0.0) if product > 0 else product  # for continuity, and for positive products alone
    margins = second * (n - second) * first * (n - first)
    phi = corrected / margins**0.5 if margins else 0.0
    below, above = (p - low, over - q), (high - p, q - under)
    down, up = ((a * a - 2 * phi * a * b + b * b) ** 0.5 for a, b in (below, above))
    return (max(-1.0, p - q - down), min(1.0, p - q + up))


def mcnemar(gained: int, lost: int) -> float:
    """The p of McNemar's exact test: how likely a coin divides the pictures that changed at least as unequally.

    McNemar 1947, doi:10.1007/BF02295996; two-sided binomial.  1 where no picture changed.

    >>> round(mcnemar(12, 2), 4)
    0.0129
    """
    from scipy import stats  # half a second, which what tests nothing does not wait for

    changed = gained + lost
    return float(stats.binomtest(gained, changed).pvalue) if changed else 1.0


def bootstrap(values: Sequence[float], seed: int = 0, draws: int = 2000) -> Interval | None:
    """The 95 % percentile interval of a mean (Efron 1979, doi:10.1214/aos/1176344552); seeded.

    None where there are fewer than seven values: from so few no draw can reach far enough to hold the true mean in 95
    of 100 cases.  See ``tails`` for samples that are small, but not as small.
    """
    v = np.asarray(values, dtype=np.float64)
    if len(v) < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWN // len(v))  # of draws that are worked on together: a loop over draws takes fifty times as long
    means = np.concatenate(
        [v[rng.integers(0, len(v), (min(rows, draws - start), len(v)))].mean(1) for start in range(0, draws, rows)]
    )
    low, high = np.percentile(means, tails(len(v)))
    return (float(low), float(high))


def tails(n: int) -> list[float]:
    """Which percentiles of the drawn means bound 95 %, for n values: 2.5 and 97.5, and further out where n is small.

    Plain percentiles are too narrow there, as a normal interval is beside Student's (Hesterberg 2015, expanded
    percentiles, doi:10.1080/00031305.2015.1089789).

    >>> [round(p, 2) for p in tails(10)]
    [0.86, 99.14]
    """
    from scipy import special  # a fifth of a second, which what draws no interval does not wait for

    low = 100 * float(special.ndtr(special.stdtrit(n - 1, 0.025) * (n / (n - 1)) ** 0.5))
    return [low, 100 - low]


def judge(interval: Interval | None, *, floor: float | None = None, ceiling: float | None = None) -> Judgement:
    """pass: the whole interval keeps the bound; fail: none of it does; warn: the pictures are too few to say.

    >>> judge((0.49, 0.94), floor=0.7)
    'warn'
    """
    if interval is None:
        return "warn"
    low, high = interval
    if floor is not None:
        if low >= floor:
            return "pass"
        return "fail" if high < floor else "warn"
    if ceiling is not None:
        if high <= ceiling:
            return "pass"
        return "fail" if low > ceiling else "warn"
    raise ValueError("judge needs a floor or a ceiling")
