"""The moment at which work is given up: every pass through a network looks at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class OutOfTime(BaseException):
    """The work is given up.  No Exception: what tries methods and goes on with the next must not catch it."""


_end: ContextVar[float | None] = ContextVar("end", default=None)


@contextmanager
def given_up_at(end: float | None) -> Iterator[None]:
    """Inside, a pass that ends after this time of the clock `time.monotonic` raises OutOfTime; None: never.

    >>> with given_up_at(time.monotonic() - 1):
    ...     look()
    Traceback (most recent call last):
    clearsight.core.deadline.OutOfTime
    """
    token = _end.set(end)
    try:
        yield
    finally:
        _end.reset(token)


def left() -> float | None:
    """Seconds until it is too late, 0 where it is; None: it never is."""
    end = _end.get()
    return None if end is None else max(end - time.monotonic(), 0.0)


def look() -> None:
    """Raise OutOfTime where it is too late."""
    if left() == 0:
        raise OutOfTime
