"""Orekondy, Schiele & Fritz 2019, arXiv:1812.02766: the functionality of a black box is stolen by asking it."""

from __future__ import annotations

from typing import Any

from clearsight.auditing.case import Case
from clearsight.core.catalogue import Call, method, parse, split_calls
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from clearsight.runner.answer import answer_defences
from clearsight.stealing.clone import Lesson
from clearsight.stealing.findings import frontier_finding
from clearsight.stealing.frontier import frontier
from clearsight.stealing.oracle import Oracle
from clearsight.stealing.pool import exam_of
from clearsight.stealing.victim import of_classifier

_FEWEST = 20  # pictures, half of which the thief asks about


def _validate(case: Case, *, thief: str, queries: int, defences: str, ceiling: float, **others: Any) -> None:
    parse(thief, "thieves")
    _chains(defences)
    if queries < 1 or not 0 <= ceiling <= 1:
        raise Refused(f"model-stealing(queries={queries}, ceiling={ceiling:g}): at least 1, and a share from 0 to 1")


@method(
    paper="arXiv:1812.02766",
    claims="by-name",
    order=8,
    validate=_validate,
    advice="limit how much an account may ask, and judge defences with clearsight steal on a larger pool",
)
def model_stealing(
    case: Case,
    *,
    thief: str = "knockoff",
    queries: int = 200,
    defences: str = "reverse-sigmoid, rounding(digits=1), top-1",
    ceiling: float = 0.8,
    arch: str = "auto",
    steps: int = 200,
    pictures: int = 400,
) -> Finding:
    """Which defence of its answers keeps the model from being cloned, and what does that cost honest users?

    Half of the pictures are a thief's pool, the other half judges clones.  A thief asks about pictures of the pool and
    trains a clone on the answers, without a defence and behind each one, in every way in which thieves adapt: from what
    is told, from the top class alone, from mean answers, and as several accounts.

    Value: the share of pictures on which the best thief's clone agrees with the model behind the defence that leaves it
    least, 0 to 1, with the Wilson interval.  The figure is the frontier: what a defence leaves to the best thief,
    beside the probability that it moves for an honest user.  ``clearsight steal`` does this with more pictures, and
    shows attacks on the clone.

    It trains several networks, so it only runs when it is named.

    pass: the whole interval lies at or below ceiling.  fail: all of it lies above.  warn: else.

    Args:
        thief: name of a thief, with options as in "active(by=entropy)".
        queries: answers that each thief gets, at least 1; at most as many as the pool has pictures.
        defences: names of answer defences with commas between them; each is judged by itself.
        ceiling: share of pictures on which a clone may agree, 0 to 1.
        arch: network of the clones, "auto" or such as clearsight:lenet5.
        steps: fewest steps of training of each clone, at least 1.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: unknown thieves and defences, no defence, and options outside their ranges.

    Source: Orekondy et al. 2019; the defences are those of their own papers.
    """
    chains = _chains(defences)
    rows = case.sample(list(range(len(case.pictures))), pictures)
    if len(rows) < _FEWEST:
        return Finding("note", f"{len(rows)} pictures are too few to steal with: give at least {_FEWEST}.")
    victim = of_classifier(case.model)
    half = len(rows) // 2
    pool, exam = case.pixels(rows[:half]), exam_of(case, victim, rows[half:])
    lesson = Lesson(arch=arch, steps=steps)
    judged = frontier(
        Oracle(victim, min(queries, half)), parse(thief, "thieves"), pool, exam, [[call] for call in chains],
        lesson=lesson, rounds=3, seed=case.seed, progress=case.progress, is_late=lambda: case.clock.is_late(0.0),
    )  # fmt: skip
    return frontier_finding(judged, ceiling=ceiling, planned=len(chains))


def _chains(defences: str) -> tuple[Call, ...]:
    calls = answer_defences(split_calls(defences))
    if not calls:
        raise Refused(f'model-stealing(defences="{defences}"): name at least one, such as reverse-sigmoid')
    if any("needs-others" in call.method.claims for call in calls):
        raise Refused(
            "model-stealing: the defence ensemble needs other networks", "use clearsight steal --member MODEL"
        )
    return calls
