"""An exported file of ours normalises by itself: what the Classifier has done already is undone before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """The mean and std of a Preprocess, one number per channel, in units of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def undone(self, z: Tensor) -> Tensor:
        """Pixels x (B, C, *S) in [0, 1] of normalised pictures z = (x - mean) / std.

        >>> import torch
        >>> Normalisation((0.5,), (0.25,)).undone(torch.tensor([[[-2.0, 0.0, 2.0]]])).tolist()
        [[[0.0, 0.5, 1.0]]]
        """
        per_channel = (-1,) + (1,) * (z.dim() - 2)
        return z * z.new_tensor(self.std).view(per_channel) + z.new_tensor(self.mean).view(per_channel)


def in_portions(fixed: int | None, z: Tensor) -> Sequence[Tensor]:
    """The pictures z (B, C, *S) in portions of the one number that a file takes, the last filled up with its first one.

    fixed: that number; None where any is taken.
    """
    if fixed is None or len(z) == fixed:
        return (z,)
    portions = list(torch.split(z, fixed))
    lacking = fixed - len(portions[-1])
    if lacking:
        last = portions[-1]
        portions[-1] = last[[*range(len(last)), *[0] * lacking]]
    return portions
