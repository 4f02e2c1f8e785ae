"""Where in each value of a run the pictures lie.

That is along one axis, which is cut into groups, each of which is cut into as many parts as there are pictures.
"""

from __future__ import annotations

from math import prod
from typing import Any

from clearsight.internals.seen_run import START, SeenRun, Step, Value, values_in


class NotPlainError(Exception):
    """Raised where it cannot be told."""


class Rows:
    """Where the pictures lie: axes of values and their groups, by number; shapes of all.

    spread: of each step that repeats a constant, whether it does so for each picture.
    """

    def __init__(self, run: SeenRun, pictures: int) -> None:
        self.pictures = pictures
        self.axes, self.groups = {START: 0}, {START: 1}
        self.shapes = {number: kind.shape for number, kind, _ in run.given}
        self.moving = {START}
        self.spread: list[bool] = []

    def expand_constant(self, step: Step) -> None:
        """A constant, repeated as often as there are pictures: each of them gets the same."""
        (number,), (kind,), before = step.gives, step.kinds, self.shape(step.args[0])
        added = len(kind.shape) - len(before)
        old = (1,) * added + before
        grown = [i for i, n in enumerate(kind.shape) if n == self.pictures and old[i] == 1]
        self.spread.append(len(grown) == 1)
        if len(grown) == 1:
            self.moving.add(number)
            self.axes[number], self.groups[number] = grown[0], 1

    def ahead(self, told: Any) -> int:
        """How many times all pictures come, one after the other, in a value."""
        return prod(self.shape(told)[: self.axis(told)]) * self.groups[told.number]

    def groups_behind(self, step: Step, axis: int) -> int:
        return self.ahead(step.args[0]) // prod(step.kinds[0].shape[:axis])

    def axis(self, told: Any) -> int:
        """That of a value that depends on the pictures."""
        if type(told) is not Value or told.number not in self.axes:
            raise NotPlainError
        return self.axes[told.number]

    def shape(self, told: Any) -> tuple[int, ...]:
        if type(told) is not Value or told.number not in self.shapes:
            raise NotPlainError
        return self.shapes[told.number]

    def is_fixed(self, told: Any) -> bool:
        """Whether an argument does not depend on the pictures."""
        return all(self.moving.isdisjoint(value) for value in values_in(told))
