"""One batcher for everything that needs many versions of each picture (steps, masks, noise), of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SIZE = 16  # pictures in one pass through the network: the fastest on the processors measured


def pairs(pictures: int, versions: int, size: int = SIZE) -> Iterator[tuple[Tensor, Tensor]]:
    """All (picture, version) pairs, at most ``size`` at a time, picture by picture.

    >>> [(r.tolist(), v.tolist()) for r, v in pairs(2, 3, 4)]
    [([0, 0, 0, 1], [0, 1, 2, 0]), ([1, 1], [1, 2])]
    """
    for start in range(0, pictures * versions, size):
        k = torch.arange(start, min(start + size, pictures * versions))
        yield k // versions, k % versions
