"""One attack on the pictures of a case: the smallest budget at which each of them falls, and the file that shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from clearsight.budgets import norm_of, size
from clearsight.case import Case
from clearsight.classifier import Classifier
from clearsight.data import Picture
from clearsight.eightbits import as_png, from_png, rounded
from clearsight.explaining import named
from clearsight.files import write_whole
from clearsight.methods import Call
from clearsight.pictures import open_picture, to_pixels
from clearsight.runner import attack, scores
from clearsight.targets import Become, Goal, Misclassify

STARTS = 10  # pictures, at most, from which an attack by labels alone may begin
FEWEST = 4  # pictures from which on half of them teach a universal attack and the other half is attacked


@dataclass(frozen=True, eq=False)
class Fallen:
    """A picture that an attack fooled: by how much, what it looks like, and whether it outlives a file.

    eps: the smallest budget tried that was enough.  x (C, *S): as 8 bits where that fools too, else as found, at the
    budget shown_eps, which may be larger for it, moved by distance.  bits: it fools as 8 bits, read back from the file;
    opened: also when the file is opened like any other picture, resized and cropped as the model wants it; None where
    there is no file.  logits (K,).
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
class Strike:
    """What an attack came to.

    rows: the pictures that were looked at; already: those that met the goal before; fallen: the others that were
    fooled, by row.  spent, first: of a black box, queries paid for each picture and the one that met the goal, 0 where
    none did.  taught: pictures that a universal attack learned from; begun: those from which an attack by labels alone
    could begin.
    """

    rows: list[int] = field(default_factory=list)
    already: set[int] = field(default_factory=set)
    fallen: dict[int, Fallen] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    taught: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()
    queries: float = 0.0
    backwards: float = 0.0

    def standing(self, eps: float) -> list[int]:
        """The rows that did not meet the goal before, and do not within eps."""
        left = [i for i in self.rows if i not in self.already]
        return [i for i in left if i not in self.fallen or self.fallen[i].eps > eps * (1 + 1e-6)]


def acceptable(case: Case, rows: Sequence[int]) -> Tensor:
    """(n, K) bool: the classes that a picture's labels allow; where it has none, the model's own answer."""
    right = case.truth[list(rows)].clone()
    blank = ~right.any(1)
    own = torch.nn.functional.one_hot(case.predicted[list(rows)], right.shape[1]).bool()
    right[blank] = own[blank]
    return right


def goal_of(case: Case, rows: Sequence[int], target: int | None) -> Goal:
    """Any answer that is not acceptable, or one class of the attacker's choice."""
    return Misclassify(acceptable(case, rows)) if target is None else Become(torch.full((len(rows),), target))


def strike(
    case: Case,
    call: Call,
    levels: Sequence[float],
    *,
    rows: Sequence[int],
    target: int | None = None,
    other: Classifier | None = None,
    access: str = "logits",
    digits: int | None = None,
    folder: Path | None = None,
) -> Strike:
    """Attack the pictures at each of the budgets, from the smallest on, those that still stand.

    An attack that looks for the smallest change is run once, without a budget; one that is taught learns from a seeded
    half of the pictures and attacks the other; one that may begin anywhere begins at others of the pictures.  folder:
    where the pictures that were fooled are written as PNG.
    """
    learned = "lessons" in call.method.given
    taught, judged = _divided(rows) if learned else ((), list(rows))
    lessons = (case.pixels(taught).to(case.model.device), goal_of(case, taught, target)) if taught else None
    begun = _starts(case, target) if "starts" in call.method.given else ()
    starts = case.pixels(begun).to(case.model.device) if begun else None
    minimal = "minimal" in call.method.claims
    found = Strike(taught=tuple(taught), begun=begun)
    stems = dict(zip(judged, _stems([case.pictures[i] for i in judged]), strict=True))
    for part, x in case.batches(judged):
        found.rows += part
        left = list(range(len(part)))
        for eps in [math.inf] if minimal else sorted(levels):
            if not left:
                break
            here = [part[j] for j in left]
            goal = goal_of(case, here, target)
            got = attack(
                case.model, x[left], goal, call, eps=eps, other=other, lessons=lessons, starts=starts, access=access,
                digits=digits, seed=case.seed,
            )  # fmt: skip
            tried = max(len(left) - int(got.already.sum()), 0)
            found.queries += got.queries * tried
            found.backwards += got.backwards * tried
            for k, i in enumerate(here):
                if got.already[k]:
                    found.already.add(i)
                if got.spent is not None and got.first is not None and not got.already[k]:
                    found.spent[i], found.first[i] = int(got.spent[k]), int(got.first[k])
            fell = got.fooled.nonzero()[:, 0].tolist()
            for k in fell:
                i = here[k]
                reach = float(got.distance[k]) if minimal else eps
                made = _fallen(case, i, got.x[k], x[left[k]], reach, call, goal[k : k + 1], folder, stems[i])
                if i not in found.fallen:
                    found.fallen[i] = made
                elif made.bits:  # it fell at less, but only here it outlives a file
                    found.fallen[i] = replace(made, eps=found.fallen[i].eps)
            gone = {here[k] for k in fell} | found.already
            keep = [j for j in left if part[j] not in gone]
            frail = [j for j in left if part[j] in found.fallen and not found.fallen[part[j]].bits]
            left = keep if folder is None else sorted({*keep, *frail})
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


def _fallen(
    case: Case, row: int, z: Tensor, clean: Tensor, eps: float, call: Call, goal: Goal, folder: Path | None, stem: str
) -> Fallen:
    model, norm = case.model, norm_of(call)
    moved = float(size((z - clean)[None], norm))
    picture = z.dim() == 3 and len(z) in (1, 3)
    if folder is None or not picture:
        return Fallen(eps, eps, moved, z, _logits(model, z), None, None, None)
    stored = rounded(z[None], clean[None], max(eps, moved), norm)[0]
    file = write_whole(folder / "attacked" / f"{stem}.png", as_png(stored))
    read = from_png(file)
    logits = _logits(model, read)
    bits = bool(goal.met(logits[None])[0]) and torch.equal(read, stored)
    opened = bool(goal.met(_logits(model, to_pixels(open_picture(file), model.preprocess))[None])[0])
    shown = stored if bits else z
    moved = float(size((shown - clean)[None], norm))
    return Fallen(eps, eps, moved, shown, logits if bits else _logits(model, z), bits, opened, file)


def _logits(model: Classifier, x: Tensor) -> Tensor:
    with model.undisturbed():
        return scores(model, x[None].to(model.device))[0]
