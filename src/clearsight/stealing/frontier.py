"""Each defence against thieves that adapt, beside what it costs the honest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from clearsight.core.catalogue import Call
from clearsight.core.progress import Progress
from clearsight.stealing.clone import Lesson
from clearsight.stealing.honest import HonestCost, honest_cost
from clearsight.stealing.oracle import Oracle
from clearsight.stealing.theft import Adaptation, Exam, Stolen, adapted, best_of, steal, with_defences


@dataclass(frozen=True, eq=False)
class Defended:
    """What thieves come to behind some defences.

    name: their spellings, "none" without any.  thefts: one for each adaptation, that of a thief who does not adapt
    first.
    """

    name: str
    cost: HonestCost
    thefts: tuple[Stolen, ...]

    @property
    def naive(self) -> Stolen:
        return self.thefts[0]

    @property
    def best(self) -> Stolen:
        """The theft whose clone agrees most."""
        return best_of(self.thefts)


def adaptations(defences: Sequence[Call]) -> tuple[Adaptation, ...]:
    """How thieves may adapt to these defences: several accounts help against those alone that remember an account."""
    if not defences:
        return ("plain", "argmax")
    remembers = any("remembers" in call.method.claims for call in defences)
    return ("plain", "argmax", "averaging", *(("accounts",) if remembers else ()))


def frontier(
    oracle: Oracle,
    thief: Call,
    pool: Tensor,
    exam: Exam,
    defences: Sequence[Sequence[Call]],
    *,
    lesson: Lesson,
    rounds: int,
    seed: int = 0,
    first: Stolen | None = None,
    progress: Progress | None = None,
    is_late: Callable[[], bool] = lambda: False,
) -> list[Defended]:
    """Run every theft: without a defence, and behind each of them, by thieves that adapt in each way.

    first: the theft without a defence, where it was run already.  rounds: of a thief who asks the clone; another has
    all answers in one.  is_late: whether no further defence is to be begun.
    """
    needed = rounds if "one-round" not in thief.method.claims else 1
    chains = [(), *map(tuple, defences)]
    total = sum(len(adaptations(chain)) for chain in chains)
    found: list[Defended] = []
    done = 0
    for chain in chains:
        if found and is_late():
            break
        behind, thefts = with_defences(oracle, chain), []
        for adaptation in adaptations(chain):
            if not chain and adaptation == "plain" and first is not None:
                thefts.append(first)
            else:
                asked = adapted(behind, adaptation)
                thefts.append(
                    steal(asked, thief, pool, exam, lesson=lesson, rounds=needed, adaptation=adaptation, seed=seed)
                )
            done += 1
            if progress is not None:
                progress("stealing behind defences", done * oracle.budget, total * oracle.budget)
        name = ", ".join(map(str, chain)) or "none"
        found.append(Defended(name, honest_cost(oracle.victim, chain, exam, seed), tuple(thefts)))
    return found
