"""What a score gained from one run to another on the same pictures, with its interval.

Efron 1979, doi:10.1214/aos/1176344552.  Both runs are scored on the same drawn sets of pictures, so that what makes a
picture hard for both leaves the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.core.statistics import FEWEST, Interval, tails
from clearsight.evaluation.records import Numbers


@dataclass(frozen=True)
class Gain:
    """A score of two runs; None where it is undefined.

    interval: 95 % of after less before, over draws of pictures; None for fewer than seven.
    """

    before: float | None
    after: float | None
    interval: Interval | None

    @property
    def value(self) -> float | None:
        """After less before."""
        return None if self.before is None or self.after is None else self.after - self.before


def gain_of(before: Numbers, after: Numbers, pictures: int) -> Gain:
    """The gain from the scores (1 + R,) of a set of pictures, which leads, and of R sets that were drawn from it.

    Row by row both are of the same set; nan where a score is undefined for it.  The percentiles of the differences are
    moved to where their mean is the difference itself, as those of the scores are, and cut off at -1 and 1.

    >>> same = np.array([0.5, 0.4, 0.6])
    >>> gain_of(same, same, 12).interval
    (0.0, 0.0)
    """
    first, second = (None if np.isnan(v[0]) else float(v[0]) for v in (before, after))
    differences = after - before
    drawn = differences[1:][~np.isnan(differences[1:])]
    if pictures < FEWEST or first is None or second is None or not len(drawn):
        return Gain(first, second, None)
    low, high = np.percentile(drawn, tails(pictures)) + differences[0] - drawn.mean()
    return Gain(first, second, (max(-1.0, float(low)), min(1.0, float(high))))
