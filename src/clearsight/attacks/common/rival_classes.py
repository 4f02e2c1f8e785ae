"""The classes that an attack starts from and aims at, for attacks that go from one class to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from clearsight.core.batching import at_once
from clearsight.core.targets import Become, Goal, Misclassify
from clearsight.errors import Refused

NONE = -1  # stands for no class


def left(goal: Goal, outputs: Tensor) -> Tensor:
    """The classes that must not win, as a mask (B, K): the right ones for Misclassify, all but the target for Become.

    Refused for any other goal, because it names no classes.
    """
    if isinstance(goal, Misclassify):
        return goal.right(outputs)
    if isinstance(goal, Become):
        return nn.functional.one_hot(goal.t.to(outputs.device), outputs.shape[1]) == 0
    raise Refused(
        "this attack moves a picture from one class to another, but the goal names no class: give right classes or "
        "Become, or use pgd or apgd-ce"
    )


def rivals(goal: Goal, outputs: Tensor, classes: int) -> Tensor:
    """The most likely of the classes that may win, best first, (B, m) with m <= classes.

    Where a picture has fewer of them than other pictures, its row is filled up with NONE.

    >>> rivals(Misclassify(torch.tensor([0])), torch.tensor([[5.0, 1.0, 3.0]]), 9)
    tensor([[2, 1]])
    """
    if classes < 1:
        raise Refused(f"classes must be at least 1, not {classes}")
    shut = left(goal, outputs)
    ranked = outputs.masked_fill(shut, -torch.inf).topk(min(classes, int((~shut).sum(1).max())), dim=1).indices
    return ranked.masked_fill(shut.gather(1, ranked), NONE)


def gap(goal: Goal, outputs: Tensor, to: Tensor) -> Tensor:
    """The best output of the classes that must not win, less that of the class to (B,): below 0 where to is ahead.

    >>> gap(Misclassify(torch.tensor([0])), torch.tensor([[5.0, 1.0, 3.0]]), torch.tensor([1]))
    tensor([4.])
    """
    only = goal.only(outputs) if isinstance(goal, Misclassify) else None
    if only is None:
        best = outputs.masked_fill(~left(goal, outputs), -torch.inf).amax(1)
    else:
        best = outputs.gather(1, only.to(outputs.device)[:, None])[:, 0]
    return best - outputs.gather(1, to.to(outputs.device)[:, None])[:, 0]


def in_groups(to: Tensor, stand: Callable[[], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of pictures and the columns of their rivals to (B, m), for attacks towards one class after the other.

    Yields the pictures (n,) and the columns (n,) of a group, column by column.  The first group holds the first column,
    where most pictures fall; the others are few and alike, and hold what goes through the network at once.  stand: says
    which pictures (B,) still stand; the others are left out.
    """
    at, width = 0, to.shape[1]
    while at < width:
        rows = stand().nonzero()[:, 0]
        groups = math.ceil((width - at) * len(rows) / at_once(backward=True))
        columns = math.ceil((width - at) / max(groups, 1)) if at else 1
        part = to[rows, at : at + columns]
        column, which = (part.T != NONE).nonzero(as_tuple=True)
        if len(which):
            yield rows[which], at + column
        at += columns


def leave_later(of: Tensor, pictures: int, rows: Tensor, met: Tensor) -> Tensor:
    """Which of the attacks rows (n,) end because they, or an earlier one on the same picture, just met (n,) the goal.

    of (N,): on which of so many pictures each attack is; earlier ones stand before later ones.

    >>> leave_later(torch.tensor([0, 1, 0, 1]), 2, torch.arange(4), torch.tensor([False, True, True, False])).tolist()
    [False, True, True, True]
    """
    first = torch.full((pictures,), len(of), device=of.device)
    first.scatter_reduce_(0, of[rows[met]], rows[met], "amin")
    return rows >= first[of[rows]]
