"""What dag moves: the many parts of a picture that are judged one by one, candidates of a detector or pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.targets import Goal, Rows
from clearsight.errors import Refused
from clearsight.kinds.box_goals import BoxesBecome, Vanish, overlaps, parts_and_objects
from clearsight.kinds.candidates import candidates
from clearsight.kinds.misdetect import Misdetect
from clearsight.kinds.region_goals import UNJUDGED, PixelsBecome, PixelsMisread, classes_on


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """The parts of pictures that are attacked, each with the class that it has and the one that it is to get.

    own, other: classes (B, T).  on: which parts are attacked, bool (B, T).  wanted: whether the goal names the other
    class; if not, any will do.  floor: of a detector, the score up to which a part is no detection; 1 of a segmenter.
    """

    own: Tensor
    other: Tensor
    on: Tensor
    wanted: bool
    floor: float

    def __getitem__(self, rows: Rows) -> DenseTargets:
        return DenseTargets(self.own[rows], self.other[rows], self.on[rows], self.wanted, self.floor)

    def active(self, outputs: Tensor) -> Tensor:
        """Which of them still have to be moved, bool (B, T)."""
        top = logits_of(outputs).argmax(1)
        left = top != self.other if self.wanted else top == self.own
        if outputs.dim() == 3:
            left |= _scores_for(outputs, self.own) > self.floor
        return left & self.on

    def gap(self, outputs: Tensor, active: Tensor) -> Tensor:
        """The sum over the active ones of the logit of their class, less that of the other: (B,)."""
        logits = logits_of(outputs)
        own, other = (logits.gather(1, classes[:, None])[:, 0] for classes in (self.own, self.other))
        return torch.where(active, own - other, 0).sum(1)


def logits_of(outputs: Tensor) -> Tensor:
    """The logits of every part, (B, K, T): of candidates (B, N, 5 + K), or of pixels (B, K, H, W)."""
    return candidates(outputs).classes.mT if outputs.dim() == 3 else outputs.flatten(2)


def dense_targets(outputs: Tensor, x: Tensor, goal: Goal, name: str, *, floor: float, overlap: float) -> DenseTargets:
    """The parts of the pictures x (B, C, H, W), as their clean outputs have them, that a goal names.

    floor, overlap: of a detector, the score for its object's class and the IoU with it that a candidate must exceed.

    Refused: goals that name no parts with a class, and a model of one class.
    """
    if isinstance(goal, Vanish | Misdetect | BoxesBecome):
        return _of_objects(outputs, x, goal, floor, overlap, name)
    if isinstance(goal, PixelsMisread):
        y = classes_on(outputs, goal.y).flatten(1)
        on = y != UNJUDGED
        own = torch.where(on, y, 0)
        return DenseTargets(own, _any_other(own, x, outputs.shape[1], name), on, wanted=False, floor=1.0)
    if isinstance(goal, PixelsBecome):
        wanted = classes_on(outputs, goal.wanted).flatten(1)
        on = wanted != UNJUDGED
        return DenseTargets(outputs.argmax(1).flatten(1), torch.where(on, wanted, 0), on, wanted=True, floor=1.0)
    raise Refused(
        f"{name} moves what is there to other classes, and {type(goal).__name__} names nothing that is there",
        "give cs.Vanish, cs.Misdetect or cs.BoxesBecome for a detector, cs.PixelsMisread or cs.PixelsBecome for a "
        "segmenter; pgd takes every goal",
    )


def _of_objects(
    outputs: Tensor, x: Tensor, goal: Vanish | Misdetect | BoxesBecome, floor: float, overlap: float, name: str
) -> DenseTargets:
    """Every candidate over an object, before any suppression; of two objects, over the nearer one."""
    parts, there = parts_and_objects(outputs, goal.boxes, goal.classes)
    n, classes = parts.boxes.shape[1], parts.classes.shape[2]
    if not goal.classes.shape[1]:
        none = torch.zeros(len(outputs), n, dtype=torch.long, device=outputs.device)
        return DenseTargets(none, none, none.bool(), wanted=False, floor=goal.floor)
    most, which = overlaps(there, parts).max(1)
    own = there.classes.to(which.device).clamp_min(0).gather(1, which)
    on = (most > overlap) & (_scores_for(outputs, own) > floor)
    if isinstance(goal, BoxesBecome):
        other = goal.wanted.to(which.device).clamp(0, classes - 1).gather(1, which)
        return DenseTargets(own, other, on, wanted=True, floor=goal.floor)
    return DenseTargets(own, _any_other(own, x, classes, name), on, wanted=False, floor=goal.floor)


def _scores_for(outputs: Tensor, classes: Tensor) -> Tensor:
    """The score of each candidate for a class of its own, classes (B, N): (B, N)."""
    return candidates(outputs).scores.gather(2, classes[..., None])[..., 0]


def _any_other(own: Tensor, x: Tensor, classes: int, name: str) -> Tensor:
    """Another class for each part, own (B, T), drawn for the picture that it is of."""
    if classes < 2:
        raise Refused(f"{name} gives what it moves other classes, and the model has one: take pgd")
    drawn = (rng.uniform(x.new_empty(len(x), own.shape[1])) * (classes - 1)).long().clamp_max(classes - 2)
    return drawn + (drawn >= own)
