"""The one error, and the one warning, that users are meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class Refused(ValueError):  # noqa: N818 (it reads as what happened: raise Refused)
    """The work cannot be done as asked.

    str joins what and fix with a colon, so that nobody who needs one of the two has to look for it in the sentence.

    Args:
        what: what was wrong.
        fix: what to do about it; "" if what says that too.

    >>> str(Refused("the network has no layer 'x'", "there are a, b"))
    "the network has no layer 'x': there are a, b"
    """

    between: ClassVar[str] = ": "

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(*((what, fix) if fix else (what,)))
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return self.between.join(filter(None, (self.what, self.fix)))


class NoGradient(Refused):
    """No gradient comes back to where a method needs one: what was found, its cause, and what to do about it.

    A kind of its own, because for some who ask it is no failure but an answer; and whoever knows what was asked for may
    raise it again with advice that suits that better.  fix: the cause and the advice.
    """

    def __init__(self, what: str, cause: str, advice: str) -> None:
        super().__init__(what, f"{cause}; {advice}")
        self.args = (what, cause, advice)  # which copies and pickles are made of
        self.cause = cause


class TooCoarse(Refused):
    """A gradient came through numbers of too few digits to be right."""


class NotFinite(Refused):
    """Scores, or what a method made of a network, that are infinite or no number.

    A kind of its own, because training knows what it comes from: steps that are too large.
    """


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
