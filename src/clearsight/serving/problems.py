"""What is wrong with a request, as the sentence of a `Refused` and a status of HTTP."""

from __future__ import annotations

from clearsight.errors import Refused


class Problem(Refused):
    """A request that is not answered.

    Args:
        status: the status of HTTP, from 400 to 599.
        what: what was wrong.
        fix: what to do about it; "" if what says that too.
        headers: further headers of the answer, such as Retry-After.

    >>> str(Problem(413, "a body of 3 MB", "send at most 2 MB"))
    'a body of 3 MB: send at most 2 MB'
    """

    def __init__(self, status: int, what: str, fix: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(what, fix)
        self.status = status
        self.headers = headers or {}


def try_again(status: int, what: str, fix: str, seconds: float) -> Problem:
    """A request that may be sent again after so many seconds, which Retry-After says in whole ones."""
    return Problem(status, what, fix, {"Retry-After": str(max(1, -int(-seconds // 1)))})
