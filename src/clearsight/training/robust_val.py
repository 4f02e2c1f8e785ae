"""How a network in training does on val under attack, and whether that broke down."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Measure
from clearsight.core.targets import Misclassify
from clearsight.runner.run import attack
from clearsight.training.batches import Store
from clearsight.training.history import Epoch
from clearsight.training.training_data import TrainingData

MOST = 256  # pictures of val that are attacked
STEPS = 10
FELL = 0.2  # by which the share that resists falls when training has learnt to fool the attack of training alone


def robust_rows(data: TrainingData, seed: int) -> list[int]:
    """The pictures of val that are attacked after each epoch: a draw of at most 256, the same in all epochs."""
    rows = data.rows("val")
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed % 2**63))[:MOST]
    return [rows[i] for i in sorted(drawn.tolist())]


def robust_right(
    model: Classifier, store: Store, data: TrainingData, rows: Sequence[int], eps: float, norm: Measure
) -> int:
    """How many of these pictures the model is right on, under pgd of 10 steps within eps too.

    Of texts, under the replacement of at most eps characters.
    """
    if norm == "characters":
        call = parse("character-substitution", "attacks")
    else:
        call = parse("pgd", "attacks").with_options(steps=STEPS, norm=norm)
    goal = Misclassify(data.y[list(rows)] > 0)
    result = attack(model, store.pixels(rows).to(model.device), goal, call, eps=eps)
    return int((~result.fooled & ~result.already).sum())


def collapsed(right: int, n: int, history: Sequence[Epoch]) -> bool:
    """Whether so few of n pictures resist that training has learnt to fool the attack of training alone.

    The bar, a fall by more than 0.2 below the best epoch, is that of Wong, Rice & Kolter 2020, arXiv:2001.03994, who
    look at one batch of train.

    >>> before = Epoch(1, 9, 1.0, 1.0, 5, 9, 0.1, 3, 1.0, True, 150, 256)
    >>> collapsed(120, 256, [before]), collapsed(90, 256, [before])
    (False, True)
    """
    best = max((e.robust_right for e in history if e.robust_right is not None), default=0)
    return (best - right) / n > FELL
