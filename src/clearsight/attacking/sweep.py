"""One attack on the pictures of a case: the smallest budget at which each of them falls, and the file that shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clearsight.attacking.eight_bit import as_png, from_png, rounded
from clearsight.auditing.case import Case
from clearsight.auditing.goals import goal_of
from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, norm_of, perturbation_norm, project
from clearsight.core.output import write_whole
from clearsight.core.targets import Goal
from clearsight.data.datasets import Picture
from clearsight.data.file_stems import named
from clearsight.data.images import open_picture, to_pixels
from clearsight.internals.scores import scores_of
from clearsight.runner.run import attack

STARTS = 10  # pictures, at most, from which an attack by labels alone may begin
FEWEST = 4  # pictures from which on half of them teach a universal attack and the other half is attacked
TOGETHER = 256  # pictures that are attacked by what was learned once
STRETCHES = (1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # of a change that rounding to 8 bits undoes


@dataclass(frozen=True, eq=False)
class AdversarialPicture:
    """A picture that an attack fooled: by how much, what it looks like, and whether it outlives a file.

    eps: the smallest budget tried that was enough; of an attack that looks for the smallest change the size of that.
    x (C, *S): as 8 bits where that fools too, else as found, at the budget shown_eps, which may be larger for it, moved
    by distance.  bits: it fools as 8 bits, read back from the file; opened: also when the file is opened like any other
    picture, resized and cropped as the model wants it; None where there is no file.  logits (K,).
    """

    eps: float
    shown_eps: float
    distance: float
    x: Tensor
    logits: Tensor
    bits: bool | None
    opened: bool | None
    file: Path | None


@dataclass
class AttackSweep:
    """What an attack came to.

    rows: the pictures that were looked at; already: those that met the goal before; at: for each budget of its own run
    the rows that were fooled by it; fallen: every picture that was fooled at any of them, or beyond all by an attack
    that looks for the smallest change, by row.  made (C, *S): what the attack at its main budget made of each, within
    the largest, where that is asked for.  spent, first: of a black
    box at its main budget, queries paid for each picture and the one that met the goal within it, 0 where none did.
    taught: pictures that a universal attack learned from; begun: those from which an attack by labels alone could
    begin.  queries, backwards: passes forward and back, over all pictures and budgets.
    """

    rows: list[int] = field(default_factory=list)
    already: set[int] = field(default_factory=set)
    at: dict[float, set[int]] = field(default_factory=dict)
    fallen: dict[int, AdversarialPicture] = field(default_factory=dict)
    made: dict[int, Tensor] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    taught: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()
    queries: float = 0.0
    backwards: float = 0.0

    def fooled(self, eps: float) -> set[int]:
        """The rows that the attack at this budget fools; of one that looks for the smallest change those within it."""
        if eps in self.at:
            return self.at[eps]
        return {i for i, f in self.fallen.items() if f.eps <= eps * (1 + 1e-6)}

    def standing(self, eps: float) -> list[int]:
        """The rows that did not meet the goal before, and do not when attacked at eps."""
        fooled = self.fooled(eps)
        return [i for i in self.rows if i not in self.already and i not in fooled]


def strike(
    case: Case,
    call: Call,
    eps: float,
    levels: Sequence[float],
    *,
    rows: Sequence[int],
    target: int | None = None,
    other: Classifier | None = None,
    access: str = "logits",
    digits: int | None = None,
    folder: Path | None = None,
    keep: bool = False,
) -> AttackSweep:
    """Attack the pictures at the main budget eps and at each of the levels, each by itself, from the smallest on.

    An attack that looks for the smallest change is run once, without a budget where it sees the model's inside, a black
    box within the largest; one that is taught learns from a seeded half of the pictures and attacks the other; one that
    may begin anywhere begins at others of the pictures.

    folder: where the pictures that were fooled are written as PNG; keep: remember what every picture was made.
    """
    learned = "lessons" in call.method.injected
    taught, judged = _divided(rows) if learned else ((), list(rows))
    lessons = (case.pixels(taught).to(case.model.device), goal_of(case, taught, target)) if taught else None
    begun = _starts(case, target) if "starts" in call.method.injected else ()
    starts = case.pixels(begun).to(case.model.device) if begun else None
    budgets = sorted({eps, *levels})
    minimal, most = "minimal" in call.method.claims, budgets[-1]
    if minimal:
        budgets = [most if "black-box" in call.method.claims else math.inf]
    found = AttackSweep(taught=tuple(taught), begun=begun, at={} if minimal else {b: set() for b in budgets})
    stems = dict(zip(judged, _stems([case.pictures[i] for i in judged]), strict=True))
    for part, x in case.lots(judged, TOGETHER) if learned else case.batches(judged):
        found.rows += part
        for number, budget in enumerate(budgets):
            seen = len(found.rows) - len(part) + len(part) * number // len(budgets)
            case.progress(case.doing, seen, len(judged))
            here = [i for i in part if i not in found.already]
            if not here:
                break
            goal, clean = goal_of(case, here, target), x[[part.index(i) for i in here]]
            got = attack(
                case.model, clean, goal, call, eps=budget, other=other, lessons=lessons, starts=starts, access=access,
                digits=digits, seed=case.seed,
            )  # fmt: skip
            tried = len(here) - int(got.already.sum())
            found.queries += got.queries * tried
            found.backwards += got.backwards * tried
            main = minimal or budget == eps
            for k, i in enumerate(here):
                if got.already[k]:
                    found.already.add(i)
                    continue
                if main and got.spent is not None and got.first is not None:
                    found.spent[i], found.first[i] = int(got.spent[k]), int(got.first[k])
                if got.fooled[k]:
                    reach = float(got.distance[k]) if minimal else budget
                    if not minimal:
                        found.at[budget].add(i)
                    limit, near = min(budget, most), reach <= most * (1 + 1e-6)
                    where = folder if near else None
                    _fell(case, found, i, got.x[k], clean[k], reach, limit, call, goal[k : k + 1], where, stems[i])
                if main and keep:
                    found.made[i] = project(got.x[k : k + 1], clean[k : k + 1], most, norm_of(call))[0]
    return found


def _divided(rows: Sequence[int]) -> tuple[list[int], list[int]]:
    if len(rows) < FEWEST:
        return list(rows), list(rows)
    half = len(rows) // 2
    return list(rows[:half]), list(rows[half:])


def _starts(case: Case, target: int | None) -> tuple[int, ...]:
    """Pictures that the model says to be the class to become; for any wrong answer one of each class that it says."""
    said = case.predicted.tolist()
    every = case.sample(range(len(said)), len(said))
    if target is not None:
        return tuple(i for i in every if said[i] == target)[:STARTS]
    return tuple({said[i]: i for i in reversed(every)}.values())[:STARTS]


def _stems(pictures: Sequence[Picture]) -> Iterator[str]:
    return (stem for _, stem in named(pictures))


def _fell(
    case: Case,
    found: AttackSweep,
    row: int,
    z: Tensor,
    clean: Tensor,
    reach: float,
    budget: float,
    call: Call,
    goal: Goal,
    folder: Path | None,
    stem: str,
) -> None:
    """Remember that z (C, *S) fools, and write it, unless what fooled at a smaller budget outlives a file already."""
    model, norm, before = case.model, norm_of(call), found.fallen.get(row)
    if before is not None and (before.bits or folder is None):
        return
    minimal = "minimal" in call.method.claims

    def made(
        x: Tensor, bits: bool | None = None, opened: bool | None = None, file: Path | None = None
    ) -> AdversarialPicture:
        moved = float(perturbation_norm((x - clean)[None], norm))
        shown = moved if minimal else budget
        return AdversarialPicture(
            before.eps if before else reach, shown, moved, x, scores_of(model, x[None])[0], bits, opened, file
        )

    if folder is None or z.dim() != 3 or len(z) not in (1, 3):
        found.fallen[row] = made(z)
        return
    free = "unbounded" in call.method.claims
    stored, bits = _outliving(model, z, clean, None if free else budget, norm, goal)
    if before is not None and not bits:
        return
    file = write_whole(folder / "attacked" / f"{stem}.png", as_png(stored))
    read = from_png(file)
    bits = bool(goal.met(scores_of(model, read[None]))[0]) and torch.equal(read, stored)
    opened = bool(goal.met(scores_of(model, to_pixels(open_picture(file), model.preprocess)[None]))[0])
    found.fallen[row] = made(stored if bits else z, bits, opened, file)


def _outliving(
    model: Classifier, z: Tensor, clean: Tensor, eps: float | None, norm: Norm, goal: Goal
) -> tuple[Tensor, bool]:
    """z (C, *S) on the grid of 8 bits, and whether it still fools there.

    Where rounding undoes a change it is made longer, by as little as does it, within eps (none: it is left as it is).
    """
    moved = float(perturbation_norm((z - clean)[None], norm))
    first = rounded(z[None], clean[None], max(eps or 0, moved), norm)
    fools = bool(goal.met(scores_of(model, first))[0])
    if fools or eps is None:
        return first[0], fools
    longer = torch.stack([clean + s * (z - clean) for s in STRETCHES])
    same = clean.expand_as(longer)
    tried = rounded(project(longer, same, eps, norm), same, eps, norm)
    logits = scores_of(model, tried)
    for k, out in enumerate(logits):
        if bool(goal.met(out[None])[0]):
            return tried[k], True
    return first[0], False
