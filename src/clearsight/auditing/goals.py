"""The goals of attacks on the pictures of a case."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.core.targets import Become, Goal, Misclassify


def acceptable(case: Case, rows: Sequence[int]) -> Tensor:
    """(n, K) bool: the classes that a picture's labels allow; where it has none, the model's own answer."""
    right = case.truth[list(rows)].clone()
    unlabelled = ~right.any(1)
    predicted = torch.nn.functional.one_hot(case.predicted[list(rows)], right.shape[1]).bool()
    right[unlabelled] = predicted[unlabelled]
    return right


def goal_of(case: Case, rows: Sequence[int], target: int | None) -> Goal:
    """Any answer that is not acceptable, or one class of the attacker's choice."""
    return Misclassify(acceptable(case, rows)) if target is None else Become(torch.full((len(rows),), target))
