"""What a defence costs those who ask honestly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clearsight.core.answering import Account, Withheld
from clearsight.core.calibration_error import ece
from clearsight.core.catalogue import Call
from clearsight.core.statistics import Interval, bootstrap, wilson
from clearsight.runner.answer import answer
from clearsight.stealing.theft import Exam
from clearsight.stealing.victim import Victim

BINS = 15


@dataclass(frozen=True)
class HonestCost:
    """What one honest account is told of n pictures, asked one by one.

    withheld: pictures without an answer.  right, of labelled: right answers; a withheld one is not right.  error: the
    expected calibration error of the answers to labelled pictures, None where there are none.  moved: share of the
    probability that lies elsewhere than in the model's own answer, half the L1 distance, mean over the pictures, where
    a withheld answer counts as 1; with its interval.  changed: answers with another top class.
    """

    n: int
    withheld: int
    right: int
    labelled: int
    error: float | None
    moved: float
    moved_interval: Interval | None
    changed: int

    @property
    def accuracy(self) -> float | None:
        return self.right / self.labelled if self.labelled else None

    @property
    def accuracy_interval(self) -> Interval | None:
        return wilson(self.right, self.labelled) if self.labelled else None


def honest_cost(victim: Victim, defences: Sequence[Call], exam: Exam, seed: int = 0) -> HonestCost:
    """The cost of defences to an honest account that asks about an exam's pictures one by one, in random order."""
    order = torch.randperm(len(exam.x), generator=torch.Generator().manual_seed(seed))
    x, truth = exam.x[order], exam.truth[order]
    p = victim.probabilities(x, 0).double()
    others = [other(x, 0).double() for other in victim.others]
    told, given = _told(defences, x, p, others)
    moved = torch.where(given, (told - p).abs().sum(1) / 2, 1.0)
    top = told.argmax(1)
    right = truth.gather(1, top[:, None])[:, 0] & given
    labelled = truth.any(1)
    shown = labelled & given
    error = None
    if bool(shown.any()):
        confidence = told[shown].amax(1).numpy()
        error = ece(confidence, right[shown].numpy().astype(np.float64), BINS)
    return HonestCost(
        n=len(x),
        withheld=int((~given).sum()),
        right=int(right[labelled].sum()),
        labelled=int(labelled.sum()),
        error=error,
        moved=float(moved.mean()),
        moved_interval=bootstrap(moved.tolist(), seed),
        changed=int((given & (top != p.argmax(1))).sum()),
    )


def _told(defences: Sequence[Call], x: Tensor, p: Tensor, others: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What is told of each picture, (n, K), and whether anything is, (n,) bool."""
    account, told, given = Account(), p.clone(), torch.ones(len(x), dtype=torch.bool)
    for i in range(len(x)):
        one = slice(i, i + 1)
        try:
            told[one] = answer(defences, account, x[one], p[one], [other[one] for other in others])
        except Withheld:
            given[i] = False
    return told, given
