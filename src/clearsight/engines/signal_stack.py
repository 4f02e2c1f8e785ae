"""Keep the stack on which this thread handles signals, while a library at work may put its own in that place.

OpenVINO's plugin for the CPU (seen in 2026.4.1, on Linux) registers a stack for signals in the thread that loads it,
and takes that memory away with its last model.  Python, too, handles signals on the registered stack: a process whose
stack is gone ends without a word at its next Ctrl+C, or when a process that it has started ends.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux: see sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> tuple[int, int, int]:
    """The address, flags and size in bytes of the stack that is registered for this thread.  On Linux alone."""
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.address or 0, stack.flags, stack.size


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Whatever happens inside, this thread has the same stack for signals afterwards as before."""
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_Stack(*before)), None)
