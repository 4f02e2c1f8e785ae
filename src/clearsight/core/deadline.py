"""The moment at which work is given up: every pass through a network looks at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class OutOfTime(BaseException):
    """The work is given up.  No Exception: what tries methods and goes on with the next must not catch it."""


_end: ContextVar[float | None] = ContextVar("end", default=None)
_began: ContextVar[float | None] = ContextVar("began", default=None)  # the command, if this is one


@contextmanager
def command() -> Iterator[None]:
    """Inside is a command, which loads libraries and a model before it works."""
    token = _began.set(time.monotonic())
    try:
        yield
    finally:
        _began.reset(token)


def since_command() -> float:
    """Seconds since the command began; 0 where this is none.

    >>> since_command()
    0.0
    >>> with command():
    ...     0 <= since_command() < 60
    True
    """
    began = _began.get()
    return 0.0 if began is None else time.monotonic() - began


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
