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
from clearsight.core.norms import Measure, norm_of, perturbation_norm, project
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
    """An adversarial picture: the budget it needed, its pixels, and whether it survives being saved as 8-bit PNG.

    eps: the smallest budget tried that was enough; for an attack that looks for the smallest change, the size of that
    change.  x (C, *S): the pixels, rounded to 8 bits if they fool so too, else as the attack found them.  shown_eps:
    the budget of x, which may be larger than eps so that x survives rounding.  distance: how far x is from the clean
    picture.  logits (K,): the scores of x.  bits: whether the 8-bit file, read back, fools.  opened: whether the file
    fools when it is opened like any other picture, resized and cropped as the model wants it.  Both are None where
    there is no file.
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
    """The result of one attack on many pictures, over all budgets.  Pictures are named by their row.

    rows: the pictures that were looked at.  already: those that met the goal before the attack.  fooled_at: for each
    budget, which has a run of its own, the rows that it fooled.  adversarial: for each row that was fooled at some
    budget its adversarial picture; an attack that looks for the smallest change may have gone beyond all budgets.
    attacked (C, *S): what the attack at its main budget made of each picture, within the largest budget; only if asked
    for.  spent, first: of a black box at its main budget, the queries paid for each picture, and the query that met the
    goal within it (0 if none did).  lesson_rows: the pictures that a universal attack learned from.  start_rows: those
    from which an attack by labels alone could begin.  queries, backwards: passes forward and back, over all pictures
    and budgets.
    """

    rows: list[int] = field(default_factory=list)
    already: set[int] = field(default_factory=set)
    fooled_at: dict[float, set[int]] = field(default_factory=dict)
    adversarial: dict[int, AdversarialPicture] = field(default_factory=dict)
    attacked: dict[int, Tensor] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    lesson_rows: tuple[int, ...] = ()
    start_rows: tuple[int, ...] = ()
    queries: float = 0.0
    backwards: float = 0.0

    def fooled(self, eps: float) -> set[int]:
        """The rows that the attack at this budget fools; of one that looks for the smallest change those within it."""
        if eps in self.fooled_at:
            return self.fooled_at[eps]
        return {i for i, picture in self.adversarial.items() if picture.eps <= eps * (1 + 1e-6)}

    def standing(self, eps: float) -> list[int]:
        """The rows that did not meet the goal before, and do not when attacked at eps."""
        fooled = self.fooled(eps)
        return [i for i in self.rows if i not in self.already and i not in fooled]


def run_sweep(
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

    An attack that looks for the smallest change is run once: a white box without a budget, a black box within the
    largest.  A universal attack learns from a seeded half of the pictures and attacks the other half.  An attack by
    labels alone begins at other pictures of the case.

    folder: where adversarial pictures are written as PNG; keep: keep what the attack made of every picture.
    """
    # What the attack needs beside the pictures: lessons to learn from, or pictures to begin at
    learns, minimal = "lessons" in call.method.injected, "minimal" in call.method.claims
    lesson_rows, attacked_rows = _divide(rows) if learns else ((), list(rows))
    lessons = None
    if lesson_rows:
        lessons = (case.pixels(lesson_rows).to(case.model.device), goal_of(case, lesson_rows, target))
    start_rows = _choose_starts(case, target) if "starts" in call.method.injected else ()
    starts = case.pixels(start_rows).to(case.model.device) if start_rows else None
    budgets = sorted({eps, *levels})
    largest = budgets[-1]
    if minimal:
        budgets = [largest if "black-box" in call.method.claims else math.inf]
    sweep = AttackSweep(
        lesson_rows=tuple(lesson_rows), start_rows=start_rows, fooled_at={} if minimal else {b: set() for b in budgets}
    )
    stems = dict(zip(attacked_rows, _file_stems([case.pictures[i] for i in attacked_rows]), strict=True))
    for part, x in case.lots(attacked_rows, TOGETHER) if learns else case.batches(attacked_rows):
        sweep.rows += part
        for number, budget in enumerate(budgets):
            done = len(sweep.rows) - len(part) + len(part) * number // len(budgets)
            case.progress(case.doing, done, len(attacked_rows))
            remaining = [i for i in part if i not in sweep.already]
            if not remaining:
                break
            goal, clean = goal_of(case, remaining, target), x[[part.index(i) for i in remaining]]
            result = attack(
                case.model, clean, goal, call, eps=budget, other=other, lessons=lessons, starts=starts, access=access,
                digits=digits, seed=case.seed,
            )  # fmt: skip
            attempted = len(remaining) - int(result.already.sum())
            sweep.queries += result.queries * attempted
            sweep.backwards += result.backwards * attempted
            is_main = minimal or budget == eps
            # What the attack came to, picture by picture
            for k, i in enumerate(remaining):
                if result.already[k]:
                    sweep.already.add(i)
                    continue
                if is_main and result.spent is not None and result.first is not None:
                    sweep.spent[i], sweep.first[i] = int(result.spent[k]), int(result.first[k])
                if result.fooled[k]:
                    needed = float(result.distance[k]) if minimal else budget
                    if not minimal:
                        sweep.fooled_at[budget].add(i)
                    limit, is_within = min(budget, largest), needed <= largest * (1 + 1e-6)
                    png_folder = folder if is_within else None
                    _remember_adversarial(
                        case, sweep, i, result.x[k], clean[k], needed, limit, call, goal[k : k + 1], png_folder,
                        stems[i],
                    )  # fmt: skip
                if is_main and keep:
                    sweep.attacked[i] = project(result.x[k : k + 1], clean[k : k + 1], largest, norm_of(call))[0]
    return sweep


def _divide(rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """The rows to learn from, and the rows to attack; the same ones where there are too few to divide."""
    if len(rows) < FEWEST:
        return list(rows), list(rows)
    half = len(rows) // 2
    return list(rows[:half]), list(rows[half:])


def _choose_starts(case: Case, target: int | None) -> tuple[int, ...]:
    """Pictures that the model puts in the target class; without a target, one of each class that it answers."""
    answers = case.predicted.tolist()
    shuffled = case.sample(range(len(answers)), len(answers))
    if target is not None:
        return tuple(i for i in shuffled if answers[i] == target)[:STARTS]
    return tuple({answers[i]: i for i in reversed(shuffled)}.values())[:STARTS]


def _file_stems(pictures: Sequence[Picture]) -> Iterator[str]:
    return (stem for _, stem in named(pictures))


def _remember_adversarial(
    case: Case,
    sweep: AttackSweep,
    row: int,
    z: Tensor,
    clean: Tensor,
    needed: float,
    budget: float,
    call: Call,
    goal: Goal,
    folder: Path | None,
    stem: str,
) -> None:
    """Remember that z (C, *S) fools, and write it, unless what fooled at a smaller budget survives its file already."""
    model, norm, smaller = case.model, norm_of(call), sweep.adversarial.get(row)
    if smaller is not None and (smaller.bits or folder is None):
        return
    minimal = "minimal" in call.method.claims

    def adversarial(
        x: Tensor, bits: bool | None = None, opened: bool | None = None, file: Path | None = None
    ) -> AdversarialPicture:
        moved = float(perturbation_norm((x - clean)[None], norm))
        shown = moved if minimal else budget
        return AdversarialPicture(
            smaller.eps if smaller else needed, shown, moved, x, scores_of(model, x[None])[0], bits, opened, file
        )

    if folder is None or z.dim() != 3 or len(z) not in (1, 3):
        sweep.adversarial[row] = adversarial(z)
        return
    free = "unbounded" in call.method.claims
    stored, bits = _survive_rounding(model, z, clean, None if free else budget, norm, goal)
    if smaller is not None and not bits:
        return
    file = write_whole(folder / "attacked" / f"{stem}.png", as_png(stored))
    read = from_png(file)
    bits = bool(goal.met(scores_of(model, read[None]))[0]) and torch.equal(read, stored)
    opened = bool(goal.met(scores_of(model, to_pixels(open_picture(file), model.preprocess)[None]))[0])
    sweep.adversarial[row] = adversarial(stored if bits else z, bits, opened, file)


def _survive_rounding(
    model: Classifier, z: Tensor, clean: Tensor, eps: float | None, norm: Measure, goal: Goal
) -> tuple[Tensor, bool]:
    """Round z (C, *S) to 8 bits -> the rounded picture, and whether it still fools.

    If rounding undoes the change, the smallest of the STRETCHES that fools makes the change longer, within eps.  With
    eps None the change is left as it is.
    """
    moved = float(perturbation_norm((z - clean)[None], norm))
    first = rounded(z[None], clean[None], max(eps or 0, moved), norm)
    fools = bool(goal.met(scores_of(model, first))[0])
    if fools or eps is None:
        return first[0], fools
    longer = torch.stack([clean + s * (z - clean) for s in STRETCHES])
    same = clean.expand_as(longer)
    candidates = rounded(project(longer, same, eps, norm), same, eps, norm)
    logits = scores_of(model, candidates)
    for k, out in enumerate(logits):
        if bool(goal.met(out[None])[0]):
            return candidates[k], True
    return first[0], False
