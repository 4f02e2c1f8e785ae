"""Do attacks on the clone fool the victim?  Papernot et al. 2017, arXiv:1602.02697: a black box attacked by a copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.statistics import Interval, wilson
from clearsight.runner.run import attack, budgeted
from clearsight.stealing.theft import Exam
from clearsight.stealing.victim import Victim

PICTURES = 200


@dataclass(frozen=True, eq=False)
class Transfer:
    """Pictures attacked on the clone, shown to the victim.

    call, eps: the attack.  n: pictures to whose class both agreed before; fooled: how many of these the victim answers
    otherwise afterwards, and of the clone.  rows: those that fool the victim, rows of the exam; clean, attacked:
    their pixels; before, after: what the victim says.
    """

    call: Call
    eps: float
    n: int
    fooled: int
    clone_fooled: int
    rows: tuple[int, ...]
    clean: Tensor
    attacked: Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def interval(self) -> Interval:
        return wilson(self.fooled, self.n)


def transfer(
    victim: Victim, clone: Classifier, exam: Exam, method: str, eps: float | None, *, pictures: int = PICTURES,
    seed: int = 0,
) -> Transfer:  # fmt: skip
    """Attack pictures on the clone, round them to 8 bits, and show them to the victim."""
    call, budget = budgeted(parse(method, "attacks"), eps)
    if "early_stop" in call.method.options and "early_stop" not in call.options:
        call = call.with_options(early_stop=False)  # a picture at the clone's border seldom fools another network
    order = torch.randperm(len(exam.x), generator=torch.Generator().manual_seed(seed))[:pictures]
    with torch.no_grad():
        agreed = clone(exam.x[order].to(clone.device)).argmax(1).cpu() == exam.said[order]
    rows = order[agreed]
    none = exam.x[:0]
    if not len(rows):
        return Transfer(call, budget, 0, 0, 0, (), none, none, (), ())
    found = attack(clone, exam.x[rows], exam.said[rows], call, eps=budget, seed=seed)
    sent = (found.x * 255).round() / 255
    after = victim.probabilities(sent, 0).argmax(1)
    moved = after != exam.said[rows]
    return Transfer(
        call, budget, len(rows), int(moved.sum()), int(found.fooled.sum()), tuple(rows[moved].tolist()),
        exam.x[rows[moved]], sent[moved], tuple(exam.said[rows[moved]].tolist()), tuple(after[moved].tolist()),
    )  # fmt: skip
