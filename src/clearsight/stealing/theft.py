"""One theft: rounds of questions, a clone after each, and how much of the victim it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from clearsight.core.blackbox import OutOfQueries
from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier
from clearsight.core.progress import Progress
from clearsight.core.statistics import Interval, wilson
from clearsight.core.theft import Theft
from clearsight.errors import Refused
from clearsight.stealing.clone import Lesson, answers_of, new_clone, train_clone
from clearsight.stealing.maps import MapLeak, shown_maps
from clearsight.stealing.oracle import Oracle

Adaptation = Literal["plain", "argmax", "averaging", "accounts"]
ADAPTATIONS: tuple[Adaptation, ...] = get_args(Adaptation)
COPIES = 4  # of each picture that an averaging thief asks about
ACCOUNTS = 4  # of a thief who divides the queries
NOISE = 4 / 255  # standard deviation of what makes the copies differ


@dataclass(frozen=True, eq=False)
class Exam:
    """Pictures on which clones are judged.

    x: pictures (n, C, *S).  said: the victim's own top classes (n,), without a defence.  truth: acceptable classes (n,
    K) bool; a row without any has no label.
    """

    x: Tensor
    said: Tensor
    truth: Tensor

    @property
    def labelled(self) -> Tensor:
        return self.truth.any(1)


@dataclass(frozen=True)
class Point:
    """What a clone comes to after so many answers: it agrees on so many of n pictures, and is right on so many."""

    queries: int
    agree: int
    n: int
    right: int
    labelled: int

    @property
    def agreement(self) -> float:
        return self.agree / self.n

    @property
    def interval(self) -> Interval:
        return wilson(self.agree, self.n)


@dataclass(frozen=True, eq=False)
class Stolen:
    """What a theft came to: its curve, its last clone, and where the victim stopped answering."""

    points: tuple[Point, ...]
    clone: Classifier
    adaptation: Adaptation
    refused: tuple[str, ...]
    noticed: int
    accounts: int

    @property
    def last(self) -> Point:
        return self.points[-1]


def rounds_to(budget: int, rounds: int) -> list[int]:
    """How many answers a thief has after each round: each time twice as many, the last time all of them.

    >>> rounds_to(1000, 4)
    [125, 250, 500, 1000]
    """
    return sorted({max(1, -(-budget // 2**k)) for k in range(rounds)})


def steal(
    oracle: Oracle,
    thief: Call,
    pool: Tensor,
    exam: Exam,
    *,
    lesson: Lesson | None = None,
    rounds: int = 4,
    adaptation: Adaptation = "plain",
    leak: MapLeak | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Stolen:
    """Steal: in each round the thief chooses pictures, the oracle answers, and a new clone learns from all answers.

    Args:
        oracle: the victim as the thief sees it, with the budget.
        thief: call of a thief of the catalogue.
        pool: pictures (P, C, *S) of the thief's own.
        exam: pictures on which the clone is judged; asking the victim about them is not of the budget.
        lesson: how a clone learns.
        rounds: number of rounds, each with twice the answers of the one before.
        adaptation: what the thief does against a defence: nothing ("plain"); learns from the top class alone
            ("argmax"); asks about four noisy copies of each picture and takes the mean answer ("averaging"); or asks as
            four accounts ("accounts"), which is the oracle's to know.
        leak: maps that are told with the answers; None for none.
        seed: of all randomness.
        progress: called with the answers so far, and those of the budget.

    Where nothing is answered at all, the clone is a network of random weights.

    Refused: an empty pool, and fewer than one round.
    """
    lesson = lesson or Lesson()
    if not len(pool) or rounds < 1:
        raise Refused(f"a pool of {len(pool)} pictures and {rounds} rounds", "give at least one of each")
    if thief.method.validate is not None:
        thief.method.validate(**{n: p.default for n, p in thief.method.options.items()} | thief.options)
    victim, generator = oracle.victim, torch.Generator().manual_seed(seed)
    fresh = new_clone(lesson, victim.preprocess, victim.labels, seed)
    theft = Theft(pool, pool[:0], torch.empty(0, len(victim.labels)), fresh, generator)
    told_maps, points = torch.empty(0, *pool.shape[2:]), []
    for goal in rounds_to(oracle.budget, rounds):
        before = len(theft.asked)
        try:
            _ask(oracle, thief, theft, goal, adaptation)
        except OutOfQueries:
            break
        if len(theft.asked) == before:
            break
        maps = None
        if leak is not None:
            told_maps = torch.cat([told_maps, shown_maps(victim, leak, theft.asked[before:], seed)])
            maps = leak.call, told_maps
        clone = new_clone(lesson, victim.preprocess, victim.labels, seed)
        train_clone(clone, theft.asked, theft.answers, lesson, seed=seed, maps=maps)
        theft.clone = clone
        points.append(judged(clone, exam, oracle.used))
        if progress is not None:
            progress("stealing", oracle.used, oracle.budget)
    if not points:  # nothing was answered: all there is is a network of random weights
        points.append(judged(theft.clone, exam, 0))
    return Stolen(tuple(points), theft.clone, adaptation, tuple(oracle.refused), oracle.noticed(), oracle.accounts)


def judged(clone: Classifier, exam: Exam, queries: int) -> Point:
    """How often a clone agrees with the victim, and is right."""
    said = answers_of(clone)(exam.x).argmax(1)
    right = exam.truth.gather(1, said[:, None])[:, 0]
    return Point(queries, int((said == exam.said).sum()), len(said), int(right.sum()), int(exam.labelled.sum()))


def _ask(oracle: Oracle, thief: Call, theft: Theft, goal: int, adaptation: Adaptation) -> None:
    """Ask until so many answers were paid for, and keep what the thief makes of them."""
    copies = COPIES if adaptation == "averaging" else 1
    wanted = (goal - oracle.used) // copies
    if wanted < 1:
        return
    pictures = thief.method(theft, wanted, **thief.options)
    if not len(pictures):
        return
    if copies == 1:
        asked, answers = oracle.ask(pictures)
    else:
        asked, answers = _averaged(oracle, pictures, theft.generator)
    if adaptation == "argmax":
        answers = torch.zeros_like(answers).scatter(1, answers.argmax(1, keepdim=True), 1.0)
    theft.asked = torch.cat([theft.asked, asked])
    theft.answers = torch.cat([theft.answers, answers.to(theft.answers)])


def _averaged(oracle: Oracle, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each picture once, with the mean answer to its noisy copies; those of which all copies were answered."""
    copies = x.repeat_interleave(COPIES, 0)
    copies = copies + NOISE * torch.randn(copies.shape, generator=generator)
    _, p = oracle.ask(copies)
    n = len(p) // COPIES
    return (x[:n] * 255).round() / 255, p[: n * COPIES].reshape(n, COPIES, -1).mean(1)


def adapted(oracle: Oracle, adaptation: Adaptation) -> Oracle:
    """The oracle as a thief with that adaptation meets it, from the first query on."""
    accounts = max(ACCOUNTS, oracle.accounts) if adaptation == "accounts" else oracle.accounts
    return Oracle(oracle.victim, oracle.budget, oracle.access, oracle.digits, oracle.defences, accounts)


def best_of(thefts: Sequence[Stolen]) -> Stolen:
    """The theft whose last clone agrees most; of equals the first."""
    return max(thefts, key=lambda t: t.last.agreement)


def with_defences(oracle: Oracle, defences: Sequence[Call]) -> Oracle:
    """The oracle behind other defences, from the first query on."""
    return replace(adapted(oracle, "plain"), defences=tuple(defences))
