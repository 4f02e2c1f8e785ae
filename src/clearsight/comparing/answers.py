"""What a run answers, picture by picture: taken from its model, or from the report of its audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from clearsight.auditing.case import Case
from clearsight.core.classifier import Classifier
from clearsight.reporting.findings import Cell, named_in
from clearsight.reporting.report import Report


@dataclass(frozen=True)
class PictureAnswer:
    """The answer of a run for one picture.

    said: the label of the top class.  right: None without a label.  wanted: the acceptable classes in words.
    probability: of the top class.  margin: the probability of the likeliest acceptable class less that of the likeliest
    other, from -1 to 1; above 0 the answer is right.  None where it is not known.
    """

    picture: str
    said: str
    right: bool | None = None
    wanted: str = ""
    probability: float | None = None
    margin: float | None = None


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a model for the pictures that could be read.

    preprocessing: classes and Preprocess, which must be equal for the maps of all pictures to be compared.
    """

    name: str
    load: Callable[[], Classifier]
    preprocessing: tuple[object, ...]
    pictures: tuple[PictureAnswer, ...]

    @cached_property
    def predictions(self) -> dict[str, str]:
        """Picture -> class."""
        return {a.picture: a.said for a in self.pictures}

    @cached_property
    def right(self) -> frozenset[str]:
        """The pictures that are answered right."""
        return frozenset(a.picture for a in self.pictures if a.right)

    @cached_property
    def labelled(self) -> bool:
        """Whether any picture has a label."""
        return any(a.right is not None for a in self.pictures)


@dataclass(frozen=True, eq=False)
class LabelledAnswers:
    """The answers of a run for the pictures that have a label, by the picture's name.

    n: how many pictures have a label.  right: empty for an audit, whose report names the wrong pictures alone.
    """

    name: str
    n: int
    wrong: dict[str, PictureAnswer]
    right: dict[str, PictureAnswer]


def answers_of_case(case: Case) -> tuple[PictureAnswer, ...]:
    """The answers of a case's model, one for each picture that could be read."""
    labelled = {*case.labelled}
    probabilities = case.logits.softmax(1)
    highest, margins = probabilities.amax(1).tolist(), _margins(probabilities, case.truth).tolist()
    return tuple(
        PictureAnswer(
            picture.name,
            case.model.labels[int(case.predicted[i])],
            bool(case.right[i]) if i in labelled else None,
            case.wanted(i),
            highest[i],
            margins[i] if i in labelled else None,
        )
        for i, picture in enumerate(case.pictures)
    )


def _margins(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(N,): of each row the largest probability where truth (N, K) holds, less the largest where it does not.

    >>> _margins(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[False, True, False]])).tolist()
    [-0.25]
    """
    return probabilities.where(truth, 0.0).amax(1) - probabilities.where(~truth, 0.0).amax(1)


def labelled_answers(answers: Answers) -> LabelledAnswers:
    """The answers of a model for the pictures that have a label."""
    of_labelled = [a for a in answers.pictures if a.right is not None]
    wrong = {a.picture: a for a in of_labelled if not a.right}
    right = {a.picture: a for a in of_labelled if a.right}
    return LabelledAnswers(answers.name, len(of_labelled), wrong, right)


def audited_answers(name: str, report: Report) -> LabelledAnswers | None:
    """The answers that an audit keeps: its check accuracy names every wrong picture.

    None where it was not asked, or does not name them all.  Without labels it judged no picture: n is 0.
    """
    accuracy = next((f for f in report.findings if f.name == "accuracy" and f.verdict != "error"), None)
    if accuracy is None:
        return None
    if accuracy.value is None:
        return LabelledAnswers(name, 0, {}, {})
    rows = [row for t in accuracy.tables for row in t.rows if "its probability" in row]
    named = [(str(named_in(row)), row) for row in rows]
    wrong = {picture: _wrong_answer(picture, row) for picture, row in named}
    if len(wrong) != accuracy.n - round(accuracy.value * accuracy.n):
        return None
    return LabelledAnswers(name, accuracy.n, wrong, {})


def _wrong_answer(name: str, row: dict[str, Cell]) -> PictureAnswer:
    """A row of the check accuracy's wrong pictures.  Their top class is not acceptable: it is the likeliest other."""
    said, wanted = _number(row.get("probability")), _number(row.get("its probability"))
    margin = None if said is None or wanted is None else wanted - said
    return PictureAnswer(name, str(row["said"]), False, str(row["acceptable"]), said, margin)


def _number(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None
