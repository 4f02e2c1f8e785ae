"""Words for numbers."""

from __future__ import annotations


def counted(n: int, thing: str, things: str = "") -> str:
    """A number with its noun: "1 picture", "3 pictures"."""
    return f"{n} {thing if n == 1 else things or thing + 's'}"
