"""Does an answer go with a part of the picture?  What confirms a shortcut, or clears a suspect."""

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
    """One transplant, pictures (C, H, W): the donor without the part, the receiver with it; what is said of each."""

    donor: int
    receiver: int
    without: Tensor
    without_answer: int
    made: Tensor
    made_answer: int


@dataclass(frozen=True, eq=False)
class Intervention:
    """What became of the answers of n pictures, the donors, and of others on which a part of them was put.

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
    case: Case, donors: Sequence[int], among: Sequence[int], box: Box, own: Mapping[int, Tensor], fill: Removal
) -> Intervention | None:
    """A box of each donor goes, at its own place, on a picture of another answer, whose own places are erased first.

    among: the rows that may receive; own: bool (H, W), where the reasons of some of them lie.  The control is a box of
    the same size at a random place.  fill: what erased pixels become.  None where no two answers differ.
    """
    size = (case.model.preprocess.size[0], case.model.preprocess.size[1])
    nothing = torch.zeros(size, dtype=torch.bool)

    def batches() -> Iterator[_Batch]:
        for part, x, receivers, _ in seeded_partners(case, donors, among):
            here = inside(box, size).expand(len(part), *size)
            there = torch.stack([inside(elsewhere(box, size, _generator(case, i)), size) for i in part])
            gone = torch.stack([own.get(r, nothing) for r in receivers])
            bare = erased(case, case.pixels(receivers), gone, fill)
            made, control = (torch.where(mask[:, None], x, bare) for mask in (here, there))
            yield _Batch(part, receivers, erased(case, x, here, fill), erased(case, x, there, fill), made, control)

    return _trial(case, "place", batches(), box)


def colour(case: Case, rows: Sequence[int]) -> Intervention | None:
    """A picture of another answer gets the colours of each donor; the control: those of one of its own answer.

    Without the part: in grey; the control: in the colours of a picture of the same answer.
    """

    def batches() -> Iterator[_Batch]:
        for part, x, receivers, fellows in seeded_partners(case, rows, rows):
            there, alike = case.pixels(receivers), case.pixels(fellows)
            own = case.pixels([_fellow(case, r, rows) for r in receivers])
            yield _Batch(part, receivers, greyed(x), recoloured(x, alike), recoloured(there, x), recoloured(there, own))

    return _trial(case, "colour", batches())


def surroundings(case: Case, rows: Sequence[int], fill: Removal) -> Intervention | None:
    """The object of a picture of another answer goes into the surroundings of each donor, whose object is erased.

    rows: annotated pictures.  The control: into the surroundings of a picture of its own answer.  Without the part: the
    donor without its surroundings; the control: without its object.
    """

    def batches() -> Iterator[_Batch]:
        for part, x, receivers, _ in seeded_partners(case, rows, rows):
            own = [_fellow(case, r, rows) for r in receivers]
            region, objects = case.regions(part), case.regions(receivers)[:, None]
            there = case.pixels(receivers)
            bare = erased(case, x, region, fill)
            alike = erased(case, case.pixels(own), case.regions(own), fill)
            yield _Batch(
                part,
                receivers,
                erased(case, x, ~region, fill),
                bare,
                torch.where(objects, there, bare),
                torch.where(objects, there, alike),
            )

    return _trial(case, "surroundings", batches())


def _trial(case: Case, kind: Kind, batches: Iterator[_Batch], box: Box | None = None) -> Intervention | None:
    rows: list[int] = []
    counts = torch.zeros(5, dtype=torch.long)
    examples: list[tuple[bool, Example]] = []
    for b in batches:
        wanted = case.predicted[list(b.rows)]
        with case.model.undisturbed():
            versions = (b.without, b.without_control, b.made, b.made_control)
            without, control, made, other = (scores(case.model, x.to(case.model.device)) for x in versions)
        less = _odds(without, wanted) < _odds(control, wanted)
        said, came = without.argmax(1), made.argmax(1)
        hits = (said != wanted, control.argmax(1) != wanted, less, came == wanted, other.argmax(1) == wanted)
        counts += torch.stack([h.sum() for h in hits])
        rows += b.rows
        j = int(hits[3].int().argmax())
        shown = Example(b.rows[j], b.receivers[j], b.without[j].cpu(), int(said[j]), b.made[j].cpu(), int(came[j]))
        examples.append((bool(hits[3][j]), shown))
    if not rows:
        return None
    changed, changed_control, felt, carried, carried_control = counts.tolist()
    example = next((e for hit, e in examples if hit), examples[0][1])
    return Intervention(
        kind, tuple(rows), changed, changed_control, felt, carried, carried_control, box=box, example=example
    )


def _odds(logits: Tensor, wanted: Tensor) -> Tensor:
    """The logarithm of the odds of a class, which tells probabilities apart that round to 1: (B, K), (B,) -> (B,)."""
    one = torch.nn.functional.one_hot(wanted, logits.shape[1]).bool()
    return logits[one] - logits.masked_fill(one, -torch.inf).logsumexp(1)


def seeded_partners(
    case: Case, donors: Sequence[int], among: Sequence[int]
) -> Iterator[tuple[list[int], Tensor, list[int], list[int]]]:
    """Batches of donors: rows, pixels, and for each a row of another answer and one of the same; all seeded draws."""
    other = {i: _drawn(case, i, [r for r in among if case.predicted[r] != case.predicted[i]]) for i in donors}
    for part, x in case.batches([i for i in donors if other[i] is not None]):
        yield part, x, [r for i in part if (r := other[i]) is not None], [_fellow(case, i, among) for i in part]


def _fellow(case: Case, row: int, among: Sequence[int]) -> int:
    """Another picture of the same answer; the picture itself where there is none."""
    found = _drawn(case, row, [r for r in among if r != row and case.predicted[r] == case.predicted[row]])
    return row if found is None else found


def _drawn(case: Case, row: int, among: Sequence[int]) -> int | None:
    return among[int(torch.randint(len(among), (), generator=_generator(case, row)))] if among else None


def _generator(case: Case, row: int) -> torch.Generator:
    """Randomness belongs to the picture: the same for a row whoever is in its batch."""
    return torch.Generator().manual_seed((case.seed + 1) * 1_000_003 + row)


def erased(case: Case, x: Tensor, gone: Tensor, fill: Removal) -> Tensor:
    """Pictures (B, C, H, W) without the pixels of a mask (B, H, W)."""
    with rng.seeded(case.seed, x, "shortcuts"):
        return taken(x, gone, instead(case.model, x, fill), torch.arange(len(x)))
