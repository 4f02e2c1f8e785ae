"""Refuse counts that are too small."""

from __future__ import annotations

from clearsight.errors import Refused


def at_least(**options: int) -> None:
    """Refuse counts below one."""
    for name, value in options.items():
        if value < 1:
            raise Refused(f"{name} must be at least 1, not {value}")
