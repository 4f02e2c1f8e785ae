"""What two segmenters say of the same pixels: the differences of IoU and of pixel accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearsight.errors import Refused
from clearsight.evaluation.gains import Gain, gain_of
from clearsight.evaluation.pixels import MEANS, means_of_counts
from clearsight.evaluation.resampling import Counts, ratio

_AT_ONCE = 2**22  # numbers of drawn counts that are held at once


@dataclass(frozen=True)
class PixelGains:
    """The means of two segmenters by their names in ``pixels.MEANS``, and the IoU of each of K classes."""

    means: dict[str, Gain]
    iou: tuple[Gain, ...]
    pictures: int


def pixel_gains(before: NDArray[np.int64], after: NDArray[np.int64], seed: int = 0, draws: int = 2000) -> PixelGains:
    """The scores of two segmenters on the same pictures, and 95 % intervals of their differences over pictures.

    Args:
        before: counts of the first, (n, 3, K) for each picture and class: pixels in both, in the truth, in the answer,
            as ``PixelCounts.per_picture`` has them.
        after: counts of the second, for the same pictures in the same order.
        seed: which pictures are drawn, the same ones for both.
        draws: how many sets are drawn.

    Refused: counts of other shapes than (n, 3, K), the same for both.

    >>> wrong, right = np.array([[[0, 0], [9, 0], [0, 9]]] * 8), np.array([[[9, 0], [9, 0], [9, 0]]] * 8)
    >>> gain = pixel_gains(wrong, right).means["pixel_accuracy"]
    >>> gain.value, gain.interval
    (1.0, (1.0, 1.0))
    """
    if before.ndim != 3 or before.shape != after.shape or before.shape[1] != 3 or not len(before):
        raise Refused(f"counts of shapes {before.shape} and {after.shape}", "give (n, 3, K) of the same pictures")
    n = len(before)
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // max(n, before[0].size))
    parts = [_scores(np.ones((1, n)), before, after)]
    for start in range(0, draws, step):
        times = rng.multinomial(n, np.full(n, 1 / n), min(step, draws - start)).astype(np.float64)
        parts.append(_scores(times, before, after))
    first, second = (np.concatenate(of_run) for of_run in zip(*parts, strict=True))
    gains = [gain_of(first[:, k], second[:, k], n) for k in range(first.shape[1])]
    return PixelGains(dict(zip(MEANS, gains, strict=False)), tuple(gains[len(MEANS) :]), n)


def _scores(times: Counts, *runs: NDArray[np.int64]) -> tuple[Counts, ...]:
    """For how often each picture was drawn (R, n): the means and the IoU of each class (R, 5 + K), of each run."""
    found = []
    for counts in runs:
        sums = (times @ counts.reshape(len(counts), -1)).reshape(len(times), *counts.shape[1:])
        both, truth, said = sums[:, 0], sums[:, 1], sums[:, 2]
        found.append(np.concatenate([means_of_counts(sums), ratio(both, truth + said - both)], -1))
    return tuple(found)
