"""The one number per picture that is explained (targets) or attacked for (goals)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from clearsight.errors import Refused

Rows = Tensor | slice
Of = Literal["logit", "prob", "sigmoid", "value"]


class Target(Protocol):
    """What is explained: outputs of the model -> one number per picture."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        ...

    def __getitem__(self, rows: Rows) -> Target:
        """The same question about some of the pictures."""
        ...

    def words(self, labels: tuple[str, ...]) -> list[str]:
        """The question in words, one for each picture (one alone where it is the same for all)."""
        ...


class Goal(Protocol):
    """What an attack is for.

    The loss falls as the goal comes nearer.
    """

    def loss(self, outputs: Tensor) -> Tensor:
        """(B, K) -> (B,)."""
        ...

    def met(self, outputs: Tensor) -> Tensor:
        """(B, K) -> (B,) bool."""
        ...

    def __getitem__(self, rows: Rows) -> Goal: ...


def _classes(index: int | list[int] | Tensor) -> Tensor:
    try:
        classes = torch.as_tensor(index)
    except (TypeError, ValueError):
        raise Refused(f"a class is a whole number, not {index!r}: model.index(name) gives that of a label") from None
    if classes.is_floating_point() or classes.dtype == torch.bool or classes.dim() > 1:
        raise Refused(f"classes are {classes.dtype} {tuple(classes.shape)}: give whole numbers, one or one per picture")
    return classes.long().clone()  # a copy may take part in a backward pass, also of what inference_mode made


def _check_classes(outputs: Tensor, index: Tensor) -> None:
    """Refuse classes () or (B,) that outputs (B, K) do not have."""
    if index.dim() and len(index) != len(outputs):
        raise Refused(f"the target names classes for {len(index)} pictures, but there are {len(outputs)}")
    if index.numel():
        low, high = map(int, index.aminmax())
        if low < 0 or high >= outputs.shape[1]:
            raise Refused(f"class {high}: this model has classes 0 to {outputs.shape[1] - 1}")


def _column(outputs: Tensor, index: Tensor) -> Tensor:
    """outputs (B, K), index () or (B,) -> (B,)."""
    _check_classes(outputs, index)
    return outputs.gather(1, index.to(outputs.device).expand(len(outputs))[:, None])[:, 0]


def _log_odds(outputs: Tensor, chosen: Tensor) -> Tensor:
    """log p(chosen) - log p(others), (B,), from outputs and a mask (B, K); 0 where all are chosen."""
    chosen_sum = outputs.masked_fill(~chosen, -torch.inf).logsumexp(1)
    excluded = chosen & ~chosen.all(1, keepdim=True)  # where there are no others, all stand against all
    others_sum = outputs.masked_fill(excluded, -torch.inf).logsumexp(1)
    return chosen_sum - others_sum


def _log_odds_of(outputs: Tensor, index: Tensor) -> Tensor:
    """`_log_odds` of one class of each picture, index (B,), of two or more, that the outputs are known to have."""
    own_logit = outputs.gather(1, index.to(outputs.device)[:, None])[:, 0]
    return own_logit - _without(outputs, index).logsumexp(1)


def _without(outputs: Tensor, index: Tensor) -> Tensor:
    """The outputs (B, K) with -inf for one class of each picture, index (B,)."""
    return outputs.scatter(1, index.to(outputs.device)[:, None], -torch.inf)


def _some(index: Tensor, rows: Rows) -> Tensor:
    return index[rows] if index.dim() else index


@dataclass(frozen=True, eq=False)
class ClassScore:
    """The score of one class as a target: outputs (B, K) -> (B,).

    Args:
        index: number of the class, 0 to K - 1, or one for each picture (B,).
        of: which score: "logit", "prob" (the probability after softmax), "sigmoid" (the probability of a label by
            itself, for multi-label models) or "value" (an output of a regressor).

    Refused: classes that are not whole numbers, and an unknown score.

    >>> ClassScore(1)(torch.tensor([[1.0, 3.0]])).item()
    3.0
    """

    index: Tensor
    of: Of = "logit"

    kind: ClassVar[str] = "classifier"

    def __init__(self, index: int | list[int] | Tensor, of: Of = "logit") -> None:
        if of not in get_args(Of):
            raise Refused(f"ClassScore of {of!r}: give one of {', '.join(get_args(Of))}")
        object.__setattr__(self, "index", _classes(index))
        object.__setattr__(self, "of", of)

    def __call__(self, outputs: Tensor) -> Tensor:
        if self.of == "prob":
            outputs = outputs.softmax(1)
        return _column(outputs.sigmoid() if self.of == "sigmoid" else outputs, self.index)

    def __getitem__(self, rows: Rows) -> ClassScore:
        return ClassScore(_some(self.index, rows), self.of)

    def words(self, labels: tuple[str, ...]) -> list[str]:
        score = "prob" if self.of == "sigmoid" else self.of
        return [f"{score} of {labels[i]}" for i in self.index.reshape(-1).tolist()]


@dataclass(frozen=True, eq=False)
class Margin:
    """Why a rather than b, as a target: the logit of a less the logit of b, outputs (B, K) -> (B,).

    Args:
        a: number of the class, 0 to K - 1, or one for each picture (B,).
        b: number of the other class, or one for each picture (B,); None for the best other class of each picture.

    Refused: classes that are not whole numbers, and two equal classes.

    >>> Margin(0)(torch.tensor([[5.0, 1.0, 3.0]])).item()
    2.0
    """

    a: Tensor
    b: Tensor | None = None

    kind: ClassVar[str] = "classifier"

    def __init__(self, a: int | list[int] | Tensor, b: int | list[int] | Tensor | None = None) -> None:
        object.__setattr__(self, "a", _classes(a))
        object.__setattr__(self, "b", None if b is None else _classes(b))
        # of one picture among others it may be asked, or what is refused would depend on how they are split
        if self.b is not None and not self.a.dim() and not self.b.dim() and int(self.a) == int(self.b):
            raise Refused(f"a margin compares two classes, but both are class {int(self.a)}: give another one")

    def __call__(self, outputs: Tensor) -> Tensor:
        if self.b is not None:
            return _column(outputs, self.a) - _column(outputs, self.b)
        own_logit = _column(outputs, self.a)
        index = self.a.to(outputs.device).expand(len(outputs))[:, None]
        return own_logit - outputs.scatter(1, index, -torch.inf).amax(1)

    def __getitem__(self, rows: Rows) -> Margin:
        return Margin(_some(self.a, rows), None if self.b is None else _some(self.b, rows))

    def words(self, labels: tuple[str, ...]) -> list[str]:
        first = [labels[i] for i in self.a.reshape(-1).tolist()]
        second = ["any other"] if self.b is None else [labels[i] for i in self.b.reshape(-1).tolist()]
        n = max(len(first), len(second))
        return [f"{first[i % len(first)]} rather than {second[i % len(second)]}" for i in range(n)]


@dataclass(frozen=True, eq=False)
class Misclassify:
    """The goal of an attack that any answer is not right.

    loss: the log-odds of the right classes against all others.  Its order is that of their log-probability, but its
    gradient does not vanish if the model is so sure that the probability rounds to 1.  margin: the best output of a
    right class less the best of all others, below 0 if the goal is met.

    Args:
        y: right classes (B,), or bool (B, K) if several classes are acceptable.

    Refused: classes that are not whole numbers, and a bool tensor of another shape.
    """

    y: Tensor

    kind: ClassVar[str] = "classifier"

    def __post_init__(self) -> None:
        if self.y.dtype != torch.bool:
            object.__setattr__(self, "y", _classes(self.y).reshape(-1))
        elif self.y.dim() != 2:
            raise Refused(f"acceptable classes have shape {tuple(self.y.shape)}: give a bool tensor (B, K)")
        else:
            object.__setattr__(self, "y", self.y.clone())

    def right(self, outputs: Tensor) -> Tensor:
        """The acceptable classes as a mask (B, K)."""
        if self.y.dtype == torch.bool:
            if self.y.shape != outputs.shape:
                raise Refused(f"acceptable classes {tuple(self.y.shape)} do not match outputs {tuple(outputs.shape)}")
            return self.y.to(outputs.device)
        self._one_each(outputs)
        return torch.zeros_like(outputs, dtype=torch.bool).scatter(1, self.y.to(outputs.device)[:, None], True)

    def only(self, outputs: Tensor) -> Tensor | None:
        """The right classes (B,), where each picture has one of several; None where the mask must be asked."""
        return None if self.y.dtype == torch.bool or outputs.shape[1] < 2 else self._one_each(outputs)

    def _one_each(self, outputs: Tensor) -> Tensor:
        if len(self.y) != len(outputs):
            raise Refused(f"there are {len(self.y)} classes, but {len(outputs)} pictures: give one class per picture")
        low, high = self._span
        if low < 0 or high >= outputs.shape[1]:
            raise Refused(f"class {high}: this model has classes 0 to {outputs.shape[1] - 1}")
        return self.y

    @cached_property
    def _span(self) -> tuple[int, int]:
        """The lowest and the highest class."""
        return (int(self.y.min()), int(self.y.max())) if len(self.y) else (0, 0)

    def loss(self, outputs: Tensor) -> Tensor:
        y = self.only(outputs)
        return _log_odds(outputs, self.right(outputs)) if y is None else _log_odds_of(outputs, y)

    def slope(self, outputs: Tensor) -> Tensor | None:
        y = self.only(outputs)
        if y is None:
            return None
        return _without(outputs, y).softmax(1).neg_().scatter_(1, y.to(outputs.device)[:, None], 1.0)

    def margin(self, outputs: Tensor) -> Tensor:
        y = self.only(outputs)
        if y is not None:
            return outputs.gather(1, y.to(outputs.device)[:, None])[:, 0] - _without(outputs, y).amax(1)
        right = self.right(outputs)
        return _top(outputs, right) - _top(outputs, ~right)

    def met(self, outputs: Tensor) -> Tensor:
        y = self.only(outputs)
        if y is not None:
            return outputs.argmax(1) != y.to(outputs.device)
        return ~self.right(outputs).gather(1, outputs.argmax(1, keepdim=True))[:, 0]

    def __getitem__(self, rows: Rows) -> Misclassify:
        y = self.y[rows]
        y = y.clone() if isinstance(rows, slice) else y
        return _misclassify(y, None if y.dtype == torch.bool else self._span)  # that of all of them


def _misclassify(y: Tensor, span: tuple[int, int] | None) -> Misclassify:
    """The goal for classes that were checked before.  span: between which they are, which is not worked out again."""
    goal = object.__new__(Misclassify)
    vars(goal)["y"] = y
    if span is not None:
        vars(goal)["_span"] = span
    return goal


@dataclass(frozen=True, eq=False)
class Become:
    """The goal of an attack that the answer is one class of the attacker's choice.

    loss: the log-odds of all others against it.  margin: the best output of another class less its own.

    Args:
        t: wanted classes (B,), 0 to K - 1.

    Refused: classes that are not whole numbers.
    """

    t: Tensor

    kind: ClassVar[str] = "classifier"

    def __post_init__(self) -> None:
        object.__setattr__(self, "t", _classes(self.t).reshape(-1))

    def loss(self, outputs: Tensor) -> Tensor:
        if outputs.shape[1] > 1:
            _check_classes(outputs, self.t)
            return -_log_odds_of(outputs, self.t)
        return -_log_odds(outputs, nn.functional.one_hot(self.t.to(outputs.device), outputs.shape[1]).bool())

    def margin(self, outputs: Tensor) -> Tensor:
        wanted = nn.functional.one_hot(self.t.to(outputs.device), outputs.shape[1]).bool()
        return _top(outputs, ~wanted) - _top(outputs, wanted)

    def met(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1) == self.t.to(outputs.device)

    def __getitem__(self, rows: Rows) -> Become:
        return Become(self.t[rows])


def _top(outputs: Tensor, among: Tensor) -> Tensor:
    """The best output among some classes; where there are none, the worst of all: (B, K), bool (B, K) -> (B,)."""
    present = among.any(1)
    best = outputs.masked_fill(~among, -torch.inf).amax(1)
    return torch.where(present, best, outputs.amin(1))


def margin(goal: Goal, outputs: Tensor) -> Tensor:
    """How far outputs (B, K) are from the goal, (B,): its own margin, or its loss where it has none."""
    margin_of_goal = getattr(goal, "margin", None)
    loss: Tensor = goal.loss(outputs) if margin_of_goal is None else margin_of_goal(outputs)
    return loss


def tangent(goal: Goal, outputs: Tensor) -> Tensor:
    """What has the gradient of a goal's loss at these outputs (B, K), for those who do not ask for its value.

    Where the goal knows that gradient, its ``slope`` (B, K), this is one number for all pictures, which takes a tenth
    of the operations of the loss and of its way back; the loss itself (B,) where it does not.
    """
    slope_of_goal = getattr(goal, "slope", None)
    slope = None if slope_of_goal is None else slope_of_goal(outputs.detach())
    return goal.loss(outputs) if slope is None else torch.dot(outputs.reshape(-1), slope.reshape(-1))


def surely_met(goal: Goal, outputs: Tensor, rounding: float) -> Tensor:
    """Whether a goal is met by more than rounding, (B,) bool, where it can tell; else whether it is met.

    rounding: how far sums may come out apart, as a share of a picture's largest output.
    """
    surely = getattr(goal, "surely", None)
    met: Tensor = goal.met(outputs) if surely is None else surely(outputs, rounding)
    return met


def as_goal(goal: Tensor | Goal) -> Goal:
    """A tensor of right classes means Misclassify."""
    return Misclassify(goal) if isinstance(goal, Tensor) else goal


@dataclass(frozen=True, eq=False)
class AwayFrom:
    """The goal of an attack that the answer is none of the classes that a picture holds shares of.

    loss: the sum of the log-probabilities of the classes, each times its share, which is the negative cross entropy.

    Args:
        shares: shares of the classes (B, K), at least 0.
    """

    shares: Tensor

    kind: ClassVar[str] = "classifier"

    def loss(self, outputs: Tensor) -> Tensor:
        return (outputs.log_softmax(1) * self.shares.to(outputs)).sum(1)

    def slope(self, outputs: Tensor) -> Tensor:
        shares = self.shares.to(outputs)
        return shares - shares.sum(1, keepdim=True) * outputs.softmax(dim=1)

    def met(self, outputs: Tensor) -> Tensor:
        return self.shares.to(outputs.device).gather(1, outputs.argmax(1, keepdim=True))[:, 0] == 0

    def __getitem__(self, rows: Rows) -> AwayFrom:
        return AwayFrom(self.shares[rows])


def label_goal(shares: Tensor) -> Goal:
    """The goal that an answer is wrong, for labels as shares of the classes (B, K).

    Misclassify where each picture has one class, else AwayFrom.
    """
    largest, y = shares.max(1)
    return _misclassify(y, (0, shares.shape[1] - 1)) if bool((largest == 1).all()) else AwayFrom(shares)
