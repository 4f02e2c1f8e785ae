"""Interventions: does the answer follow a part of the picture when that is erased or put on another picture?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.spray import Box, elsewhere, inside
from clearsight.core import rng
from clearsight.internals.scores import scores
from clearsight.perturbation.recolouring import greyed, recoloured
from clearsight.perturbation.removal import Removal, instead, taken

Kind = Literal["place", "colour", "surroundings"]


@dataclass(frozen=True, eq=False)
class Example:
    """One transplant, pictures (C, H, W): the donor without the part, the receiver with it, and their top classes."""

    donor: int
    receiver: int
    without: Tensor
    without_answer: int
    made: Tensor
    made_answer: int


@dataclass(frozen=True, eq=False)
class Intervention:
    """How many answers an intervention changed, of n pictures (donors) and of the receivers of a part of them.

    changed: without the part the donor gets another answer; changed_control: without as much elsewhere, or with the
    part of a picture of the same answer; felt: the answer's odds fall further without the part than with the control.
    carried: the receiver gets the donor's answer; carried_control: it gets that from as much elsewhere, or from the
    part of a picture of its own answer.  box: of a place.
    """

    kind: Kind
    rows: tuple[int, ...]
    changed: int
    changed_control: int
    felt: int
    carried: int
    carried_control: int
    box: Box | None
    example: Example

    @property
    def n(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Donors' and receivers' rows, and the four versions of them, (B, C, H, W) each."""

    rows: Sequence[int]
    receivers: Sequence[int]
    without: Tensor
    without_control: Tensor
    made: Tensor
    made_control: Tensor


def place(
    case: Case, donors: Sequence[int], among: Sequence[int], box: Box, reasons: Mapping[int, Tensor], fill: Removal
) -> Intervention | None:
    """A box of each donor goes, at its own place, on a picture of another answer, whose own places are erased first.

    among: the rows that may receive; reasons: bool (H, W), by row, where the maps of some of them come together.  The
    control is a box of the same size at a random place.  fill: what erased pixels become.  None where no two answers
    differ.
    """
    size = (case.model.preprocess.size[0], case.model.preprocess.size[1])
    nowhere = torch.zeros(size, dtype=torch.bool)

    def batches() -> Iterator[_Batch]:
        for part, x, receivers, _ in seeded_partners(case, donors, among):
            masks = inside(box, size).expand(len(part), *size)
            control_masks = torch.stack([inside(elsewhere(box, size, _row_generator(case, i)), size) for i in part])
            erased_masks = torch.stack([reasons.get(r, nowhere) for r in receivers])
            emptied = erased(case, case.pixels(receivers), erased_masks, fill)
            made, control = (torch.where(mask[:, None], x, emptied) for mask in (masks, control_masks))
            yield _Batch(
                part, receivers, erased(case, x, masks, fill), erased(case, x, control_masks, fill), made, control
            )

    return _run_intervention(case, "place", batches(), box)


def colour(case: Case, rows: Sequence[int]) -> Intervention | None:
    """A picture of another answer gets the colours of each donor; the control: those of one of its own answer.

    Without the part: in grey; the control: in the colours of a picture of the same answer.
    """

    def batches() -> Iterator[_Batch]:
        for part, x, receivers, fellows in seeded_partners(case, rows, rows):
            received, same_answer = case.pixels(receivers), case.pixels(fellows)
            own_answer = case.pixels([_draw_same_answer(case, r, rows) for r in receivers])
            yield _Batch(
                part,
                receivers,
                greyed(x),
                recoloured(x, same_answer),
                recoloured(received, x),
                recoloured(received, own_answer),
            )

    return _run_intervention(case, "colour", batches())


def surroundings(case: Case, rows: Sequence[int], fill: Removal) -> Intervention | None:
    """The object of a picture of another answer goes into the surroundings of each donor, whose object is erased.

    rows: annotated pictures.  The control: into the surroundings of a picture of its own answer.  Without the part: the
    donor without its surroundings; the control: without its object.
    """

    def batches() -> Iterator[_Batch]:
        for part, x, receivers, _ in seeded_partners(case, rows, rows):
            own_rows = [_draw_same_answer(case, r, rows) for r in receivers]
            region, objects = case.regions(part), case.regions(receivers)[:, None]
            received = case.pixels(receivers)
            emptied = erased(case, x, region, fill)
            own_emptied = erased(case, case.pixels(own_rows), case.regions(own_rows), fill)
            yield _Batch(
                part,
                receivers,
                erased(case, x, ~region, fill),
                emptied,
                torch.where(objects, received, emptied),
                torch.where(objects, received, own_emptied),
            )

    return _run_intervention(case, "surroundings", batches())


def _run_intervention(case: Case, kind: Kind, batches: Iterator[_Batch], box: Box | None = None) -> Intervention | None:
    rows: list[int] = []
    counts = torch.zeros(5, dtype=torch.long)
    examples: list[tuple[bool, Example]] = []
    for b in batches:
        answers = case.predicted[list(b.rows)]
        with case.model.undisturbed():
            versions = (b.without, b.without_control, b.made, b.made_control)
            without, control, made, made_control = (scores(case.model, x.to(case.model.device)) for x in versions)
        fell_further = log_odds(without, answers) < log_odds(control, answers)
        without_answers, made_answers = without.argmax(1), made.argmax(1)
        hits = (
            without_answers != answers,
            control.argmax(1) != answers,
            fell_further,
            made_answers == answers,
            made_control.argmax(1) == answers,
        )
        counts += torch.stack([h.sum() for h in hits])
        rows += b.rows
        j = int(hits[3].int().argmax())
        example = Example(
            b.rows[j],
            b.receivers[j],
            b.without[j].cpu(),
            int(without_answers[j]),
            b.made[j].cpu(),
            int(made_answers[j]),
        )
        examples.append((bool(hits[3][j]), example))
    if not rows:
        return None
    changed, changed_control, felt, carried, carried_control = counts.tolist()
    example = next((e for hit, e in examples if hit), examples[0][1])
    return Intervention(
        kind, tuple(rows), changed, changed_control, felt, carried, carried_control, box=box, example=example
    )


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """The logarithm of the odds of a class, which tells probabilities apart that round to 1: (B, K), (B,) -> (B,)."""
    of_class = torch.nn.functional.one_hot(classes, logits.shape[1]).bool()
    return logits[of_class] - logits.masked_fill(of_class, -torch.inf).logsumexp(1)


def seeded_partners(
    case: Case, donors: Sequence[int], among: Sequence[int]
) -> Iterator[tuple[list[int], Tensor, list[int], list[int]]]:
    """Batches of donors: rows, pixels, and for each a row of another answer and one of the same; all seeded draws."""
    partners = {i: _draw_row(case, i, [r for r in among if case.predicted[r] != case.predicted[i]]) for i in donors}
    for part, x in case.batches([i for i in donors if partners[i] is not None]):
        yield (
            part,
            x,
            [r for i in part if (r := partners[i]) is not None],
            [_draw_same_answer(case, i, among) for i in part],
        )


def _draw_same_answer(case: Case, row: int, among: Sequence[int]) -> int:
    """Another picture of the same answer; the picture itself where there is none."""
    partner = _draw_row(case, row, [r for r in among if r != row and case.predicted[r] == case.predicted[row]])
    return row if partner is None else partner


def _draw_row(case: Case, row: int, among: Sequence[int]) -> int | None:
    return among[int(torch.randint(len(among), (), generator=_row_generator(case, row)))] if among else None


def _row_generator(case: Case, row: int) -> torch.Generator:
    """Randomness belongs to the picture: the same for a row whoever is in its batch."""
    return torch.Generator().manual_seed((case.seed + 1) * 1_000_003 + row)


def erased(case: Case, x: Tensor, mask: Tensor, fill: Removal) -> Tensor:
    """Pictures (B, C, H, W) without the pixels of a mask (B, H, W)."""
    with rng.seeded(case.seed, x, "shortcuts"):
        return taken(x, mask, instead(case.model, x, fill), torch.arange(len(x)))
