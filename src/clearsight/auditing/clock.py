"""The time that the work on a case may take, and how it is shared among checks."""

from __future__ import annotations

import time

from clearsight.core.deadline import since_command

GRACE = 3.0  # seconds after the budget for a check to be done
OF_THE_FIRST = 8.0  # the same for the first one, without which nothing would be said


class Clock:
    """A budget in seconds, and the deadline of the part of the work that is being done.

    Args:
        budget: seconds for all of the work; None without a limit, and then nothing is ever late.
    """

    def __init__(self, budget: float | None = None) -> None:
        self.budget = budget
        self.deadline: float | None = None
        self._end: float | None = None
        self._late = 0.0

    @staticmethod
    def now() -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def start(self) -> None:
        """The budget counts from now.  What a command has taken until now is taken off its grace."""
        self._end = self.now() + self.budget if self.budget else None
        self._late = since_command()

    def share(self, parts: int) -> None:
        """Divide the time left equally among the parts left: the deadline is that of the first."""
        if self._end is not None:
            now = self.now()
            self.deadline = now + max(self._end - now, 0) / parts

    def last_moment(self, grace: float = GRACE) -> float | None:
        """When a check that is not done is given up: a twentieth of the budget after its end, at least so many seconds.

        A command that took long until it began with the checks leaves less, or nothing, after the budget.
        """
        if self._end is None or self.budget is None:
            return None
        return self._end + max(max(grace, self.budget / 20) - self._late, 0.0)

    @property
    def is_over(self) -> bool:
        """Whether the whole budget is used up."""
        return self._end is not None and self.now() >= self._end

    def is_late(self, last: float) -> bool:
        """Whether another batch of as many seconds as the last one would end after the deadline."""
        return self.deadline is not None and self.now() + last > self.deadline
