"""How this process gets its memory from the system, and looks for what it can free."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from clearsight.core.uncollected import uncollected
from clearsight.errors import Refused

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt, as in malloc.h of glibc
FREE = 512 * 2**20  # bytes, at the end of the heap, that stay with the process
BLOCK = 31 * 2**20  # bytes: glibc learns from freed blocks of at most 32 MB
ALL = 2**31 - 1  # the most that mallopt takes; for training, each of whose steps asks for the same again


def reuse_memory(free: int = FREE) -> bool:
    """Let freed memory stay with this process, up to free, and be used again; whether the system's library can do so.

    Without it glibc gives every block of 32 MB or more, such as one layer's output for a batch, back to the system as
    soon as it is free, which clears it page by page when it is asked for again: gradients of 16 pictures of 224 pixels
    took up to 1.4 times as long.  Guided steps of 32 pictures of 112 pixels on an EfficientNet-Lite0, of 2.2 GB at
    most, took 1.14 times as long with FREE as with ALL.

    The commands do this when they start.  Importing the package does not: a library leaves its user's process as it is,
    but for what free_one_block says.

    Args:
        free: bytes of freed memory, at the end of the heap, that stay with the process at most.

    Refused: a free below 0 or above 2**31 - 1.

    Source: mallopt of the GNU C library, M_MMAP_MAX and M_TRIM_THRESHOLD.

    >>> reuse_memory() in (True, False)
    True
    """
    if not 0 <= free <= ALL:
        raise Refused(f"free is {free} bytes", f"take a number from 0 to {ALL}")
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, free))


@cache
def free_one_block() -> bool:
    """Ask the system's library for a block of BLOCK bytes, and free it; whether this was done.

    glibc sets its thresholds by the largest block that it has given back: from now on it keeps what is smaller, and up
    to twice as much at the end of the heap.  Large networks free such a block in each pass.  Where a small network
    frees none, each of its passes may be cleared page by page: square on 200 digits met 180,000 page faults a call.
    Where somebody has set the thresholds, as reuse_memory does, nothing changes.

    Source: mallopt of the GNU C library, the dynamic mmap threshold.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    library.free(library.malloc(ctypes.c_size_t(BLOCK)))
    return True


@contextmanager
def starting() -> Iterator[None]:
    """Inside, libraries are imported and a model is loaded without looking for garbage; what stays is never looked at.

    Python would look every 700 objects, and now and then go through the half million that the libraries have.  For
    processes of our own.
    """
    with uncollected():
        try:
            yield
        finally:
            gc.freeze()
