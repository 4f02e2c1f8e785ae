"""The one error, and the one warning, that users are meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refused(ValueError):  # noqa: N818 (it reads as what happened: raise Refused)
    """The work cannot be done as asked.  The sentence says what was wrong and what to do."""


class NoGradient(Refused):
    """No gradient comes back to where a method needs one: what was found, with its cause, and what to do about it.

    A kind of its own, because for some who ask it is no failure but an answer; and whoever knows what was asked for may
    raise it again with advice that suits that better.
    """

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(found, mend)
        self.found = found

    def __str__(self) -> str:
        return "; ".join(self.args)


class TooCoarse(Refused):
    """A gradient came through numbers of too few digits to be right."""


class Notice(UserWarning):
    """What a user should know although the work goes on: a warning in Python, a line on the command line's stderr."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint to end an error with: the known words most like an unknown one, or how to find them all.

    >>> nearest("grad-cm", ["saliency", "grad-cam"])
    'did you mean grad-cam?'
    """
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(known[:12])
    return f"there are {shown}{', ...' if len(known) > 12 else ''}"
