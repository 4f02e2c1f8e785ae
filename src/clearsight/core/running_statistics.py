"""What BatchNorm learns of the pictures that pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def statistics_held(net: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm does not learn means and variances from what passes; in training it still uses a batch's own.

    So passes over pictures that are none of the training's, as those on a path are, leave nothing behind.
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    try:
        for m in norms:
            m.track_running_stats = False
        yield
    finally:
        for m in norms:
            m.track_running_stats = True
