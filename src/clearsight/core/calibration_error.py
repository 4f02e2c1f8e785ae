"""The expected calibration error: Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, equation 3."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def ece(confidence: Numbers, right: Numbers, bins: int) -> float:
    """The expected calibration error: sure (n) in [0, 1], right (n) 0 or 1.  Bins are open below, closed above.

    Two answers with 0.9, one of them right, and one with 0.3 that is wrong: 2/3 of 0.4 and 1/3 of 0.3.

    >>> round(ece(np.array([0.9, 0.9, 0.3]), np.array([1.0, 0.0, 0.0]), 10), 4)
    0.3667
    """
    return float(np.abs(np.bincount(bin_of(confidence, bins), confidence - right, bins)).sum() / len(confidence))


def bin_of(confidence: Numbers, bins: int) -> npt.NDArray[np.int64]:
    """The bin of each confidence in [0, 1], from 0."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
