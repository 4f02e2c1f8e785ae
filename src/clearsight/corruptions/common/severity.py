"""The constants of a severity, and how lengths grow with the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch

from clearsight.errors import Refused

T = TypeVar("T")
SMALL, LARGE = 32, 224  # the shorter sides, in pixels, for which the two published sets of constants are meant
BETWEEN = math.sqrt(SMALL * LARGE)  # 84.7: a shorter side below it is nearer to SMALL, by ratio
SEVERITIES = (1, 2, 3, 4, 5)


def graded(severity: int, five: Sequence[T]) -> T:
    """Choose the constants of one severity out of five; a severity that does not exist is refused.

    >>> graded(5, [10, 20, 30, 40, 50])
    50
    """
    if severity not in SEVERITIES:
        raise Refused(f"severity must be a whole number from 1 (mild) to 5 (severe), not {severity}")
    return five[severity - 1]


def constants(x: torch.Tensor, severity: int, small: Sequence[T], large: Sequence[T]) -> tuple[T, float]:
    """The constants of one severity for pictures x (B, C, H, W), and the factor by which their lengths grow.

    small: those of CIFAR-10-C, for pictures whose shorter side is below 84 pixels; large: those of ImageNet-C, for all
    others.  Lengths are in pixels for a shorter side of 32 or 224, and the factor is the shorter side divided by that.
    For small pictures the factor is at least 1, because their lengths are hardly a pixel.

    >>> constants(torch.zeros(1, 3, 64, 80), 1, [3.0] * 5, [9.0] * 5)
    (3.0, 2.0)
    """
    side = min(x.shape[2:])
    if side < BETWEEN:
        return graded(severity, small), max(1.0, side / SMALL)
    return graded(severity, large), side / LARGE
