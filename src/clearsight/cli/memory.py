"""Memory that is freed stays with the process, so that the next tensor of its size costs nothing."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
_LARGEST = 2**31 - 1  # bytes, the largest that mallopt takes


def keep_freed_memory() -> None:
    """Let glibc keep what is freed; nothing is done where there is no glibc.

    By default each tensor above 32 MB comes from the kernel anew, whose empty pages cost a quarter of a network's
    forward pass, and goes back when it is freed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries lack it
    if mallopt is None:
        return
    for threshold in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        mallopt(threshold, _LARGEST)
