"""The time that the work on a case may take, and how it is shared among checks."""

from __future__ import annotations

import time


class Clock:
    """A budget in seconds, and the deadline of the part of the work that is being done.

    Args:
        budget: seconds for all of the work; None without a limit, and then nothing is ever late.
    """

    def __init__(self, budget: float | None = None) -> None:
        self.budget = budget
        self.deadline: float | None = None
        self._end: float | None = None

    @staticmethod
    def now() -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def start(self) -> None:
        """The budget counts from now."""
        self._end = self.now() + self.budget if self.budget else None

    def share(self, parts: int) -> None:
        """Divide the time left equally among the parts left: the deadline is that of the first."""
        if self._end is not None:
            now = self.now()
            self.deadline = now + max(self._end - now, 0) / parts

    @property
    def last_moment(self) -> float | None:
        """When a check that is not done is given up: a twentieth of the budget after its end, at least 3 seconds."""
        return None if self._end is None or self.budget is None else self._end + max(3.0, self.budget / 20)

    @property
    def is_over(self) -> bool:
        """Whether the whole budget is used up."""
        return self._end is not None and self.now() >= self._end

    def is_late(self, last: float) -> bool:
        """Whether another batch of as many seconds as the last one would end after the deadline."""
        return self.deadline is not None and self.now() + last > self.deadline
