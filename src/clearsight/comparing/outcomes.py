"""What became of each picture from one run to another: mended, broken, right in both or wrong in both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clearsight.comparing.answers import LabelledAnswers, PictureAnswer
from clearsight.core.label_names import first_name
from clearsight.core.statistics import Interval, mcnemar, paired_gap
from clearsight.reporting.findings import Cell


@dataclass(frozen=True)
class PairedAnswer:
    """The answers of both runs for one picture; None where an audit gave the right answer and does not keep it."""

    picture: str
    wanted: str
    before: PictureAnswer | None
    after: PictureAnswer | None

    @property
    def change(self) -> float:
        """The margin after less the margin before; one that is not known counts as 0."""
        margins = [a.margin or 0.0 if a is not None else 0.0 for a in (self.after, self.before)]
        return margins[0] - margins[1]

    def row(self) -> dict[str, Cell]:
        """The row of a table.  A right answer that is not kept is one of the acceptable classes."""
        return {"picture": self.picture, "acceptable": self.wanted, **self._cells("before"), **self._cells("after")}

    def _cells(self, when: str) -> dict[str, Cell]:
        answer = self.before if when == "before" else self.after
        if answer is None:
            return {when: self.wanted, f"{when}, probability": None, f"{when}, margin": None}
        cells: dict[str, Cell] = {when: first_name(answer.said)}
        return cells | {f"{when}, probability": answer.probability, f"{when}, margin": answer.margin}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of the n labelled pictures; each list has the worst first.

    mended: wrong before and right after, the largest gain of margin first.  broken: right before and wrong after, the
    largest loss first.  wrong: wrong in both, the least margin after first.  right: right in both, as far as known by
    name; right_in_both: how many they are.
    """

    n: int
    mended: tuple[PairedAnswer, ...]
    broken: tuple[PairedAnswer, ...]
    wrong: tuple[PairedAnswer, ...]
    right: tuple[PairedAnswer, ...]

    @property
    def right_in_both(self) -> int:
        return self.n - len(self.mended) - len(self.broken) - len(self.wrong)

    @property
    def before(self) -> float:
        """The share of right answers before."""
        return (self.right_in_both + len(self.broken)) / self.n

    @property
    def after(self) -> float:
        """The share of right answers after."""
        return (self.right_in_both + len(self.mended)) / self.n

    @property
    def gain(self) -> float:
        return (len(self.mended) - len(self.broken)) / self.n

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the gain."""
        return paired_gap(self.right_in_both, len(self.mended), len(self.broken), len(self.wrong))

    @property
    def p(self) -> float:
        """The p of McNemar's exact test."""
        return mcnemar(len(self.mended), len(self.broken))


def pair(before: LabelledAnswers, after: LabelledAnswers) -> Outcomes:
    """The answers of two runs on the same labelled pictures, picture by picture."""

    def listed(names: set[str], key: Callable[[PairedAnswer], float]) -> tuple[PairedAnswer, ...]:
        return tuple(sorted((_paired(name, before, after) for name in names), key=lambda a: (key(a), a.picture)))

    wrong_before, wrong_after = {*before.wrong}, {*after.wrong}
    known = {*before.right, *after.right}
    return Outcomes(
        before.n,
        listed(wrong_before - wrong_after, lambda a: -a.change),
        listed(wrong_after - wrong_before, lambda a: a.change),
        listed(wrong_before & wrong_after, _margin_after),
        listed(known - wrong_before - wrong_after, _margin_after),
    )


def _margin_after(answer: PairedAnswer) -> float:
    return (answer.after.margin or 0.0) if answer.after is not None else 0.0


def _paired(name: str, before: LabelledAnswers, after: LabelledAnswers) -> PairedAnswer:
    answers = [run.wrong.get(name) or run.right.get(name) for run in (before, after)]
    wanted = next(a.wanted for a in answers if a is not None)
    return PairedAnswer(name, wanted, *answers)
