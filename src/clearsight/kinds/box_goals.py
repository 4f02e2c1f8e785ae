"""What an attack on a detector is for: that objects vanish, appear, or are taken for something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clearsight.core.boxes import iou_table
from clearsight.core.targets import Rows
from clearsight.errors import Refused
from clearsight.kinds.candidates import Candidates, candidates
from clearsight.kinds.detections import Detections, detections

HALF = 0.5  # IoU from which on a detection counts as that of an object
APART = 0.1  # IoU below which a box lies on background
REACH = 0.3  # IoU from which on a candidate is pushed: below HALF, or the box would slip away sideways
_LEAST = -1e-30  # logarithm of the largest score that is told from 1


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of B pictures, padded to the same number M.

    boxes: (B, M, 4), x1, y1, x2, y2 in pixels of the network's input.  classes: int64 (B, M), -1 where there is none.
    """

    boxes: Tensor
    classes: Tensor

    def __post_init__(self) -> None:
        if self.boxes.dim() != 3 or self.boxes.shape[2] != 4 or self.classes.shape != self.boxes.shape[:2]:
            raise Refused(
                f"boxes {tuple(self.boxes.shape)} and classes {tuple(self.classes.shape)} of objects",
                "give boxes (B, M, 4) and classes (B, M), -1 where a picture has fewer",
            )

    def __getitem__(self, rows: Rows) -> Objects:
        return Objects(self.boxes[rows], self.classes[rows])

    @property
    def present(self) -> Tensor:
        """Where there is an object, bool (B, M)."""
        return self.classes >= 0


def objects(found: Sequence[Detections]) -> Objects:
    """The boxes of several pictures as objects."""
    most = max((len(one) for one in found), default=0)
    boxes, classes = torch.zeros(len(found), most, 4), torch.full((len(found), most), -1)
    for i, one in enumerate(found):
        boxes[i, : len(one)], classes[i, : len(one)] = one.boxes.float(), one.labels
    return Objects(boxes, classes)


@dataclass(frozen=True, eq=False)
class Vanish:
    """The goal that none of the objects is found any more: no detection of its class with an IoU of 0.5 or more.

    loss: over the candidates that overlap an object of their class, the sum of -log(1 - score), the negative logarithm
    of the chance that none of them fires.  All are pushed down, or another one would take over.

    Args:
        boxes: (B, M, 4), in pixels of the network's input.
        classes: (B, M), -1 where a picture has fewer objects.
        floor: score that a detection must exceed.
        overlap: the detector's suppression: largest IoU of two boxes of one class.

    Refused: boxes and classes of different numbers.
    """

    boxes: Tensor
    classes: Tensor
    floor: float = 0.5
    overlap: float = 0.5

    kind: ClassVar[str] = "detector"

    def loss(self, outputs: Tensor) -> Tensor:
        parts, wanted = candidates(outputs), Objects(self.boxes, self.classes)
        near = _of_class(_overlaps(wanted, parts) >= REACH, wanted, parts)
        return -_log_none(parts.log_scores).masked_fill(~near, 0).flatten(1).sum(1)

    def met(self, outputs: Tensor) -> Tensor:
        return ~self.left(outputs).any(1)

    def left(self, outputs: Tensor) -> Tensor:
        """Which objects are still found, bool (B, M)."""
        found = detections(outputs, self.floor, self.overlap)
        return _found(Objects(self.boxes, self.classes), self.classes, found).to(outputs.device)

    def __getitem__(self, rows: Rows) -> Vanish:
        return Vanish(self.boxes[rows], self.classes[rows], self.floor, self.overlap)


@dataclass(frozen=True, eq=False)
class Appear:
    """The goal that an object of a class is found where there is none: with an IoU below 0.1 with every object.

    loss: less the logarithm of the sum of the scores of all candidates on background.

    Args:
        wanted: (B,) number of the class that is to appear.
        boxes: (B, M, 4), in pixels of the network's input, of the objects that are there.
        classes: (B, M), -1 where a picture has fewer objects.
        floor: score that a detection must exceed.
        overlap: the detector's suppression: largest IoU of two boxes of one class.

    Refused: boxes and classes of different numbers.
    """

    wanted: Tensor
    boxes: Tensor
    classes: Tensor
    floor: float = 0.5
    overlap: float = 0.5

    kind: ClassVar[str] = "detector"

    def loss(self, outputs: Tensor) -> Tensor:
        parts, there = candidates(outputs), Objects(self.boxes, self.classes)
        free = (_overlaps(there, parts) < APART).all(1)
        rows = torch.arange(len(outputs), device=outputs.device)
        log_score = parts.log_scores[rows, :, self.wanted.to(outputs.device)]
        lowest = torch.finfo(log_score.dtype).min
        return -log_score.masked_fill(~free, lowest).logsumexp(1)

    def met(self, outputs: Tensor) -> Tensor:
        return self.made(outputs) > 0

    def made(self, outputs: Tensor) -> Tensor:
        """How many objects of the class are found on background, (B,)."""
        counts = []
        for i, found in enumerate(detections(outputs, self.floor, self.overlap)):
            there = self.boxes[i][self.classes[i] >= 0].float().cpu()
            far = (iou_table(there, found.boxes) < APART).all(0)
            counts.append(int((far & (found.labels == self.wanted[i].cpu())).sum()))
        return torch.tensor(counts, device=outputs.device)

    def __getitem__(self, rows: Rows) -> Appear:
        return Appear(self.wanted[rows], self.boxes[rows], self.classes[rows], self.floor, self.overlap)


@dataclass(frozen=True, eq=False)
class BoxesBecome:
    """The goal that every object is found as one of another class, and no more as one of its own.

    loss: for each object, less the logarithm of the sum of the wanted class's scores over the candidates that overlap
    it; and, over the same, the sum of -log(1 - score) of the class that it has.

    Args:
        boxes: (B, M, 4), in pixels of the network's input.
        classes: (B, M), -1 where a picture has fewer objects.
        wanted: (B, M) number of the class that each is to become.
        floor: score that a detection must exceed.
        overlap: the detector's suppression: largest IoU of two boxes of one class.

    Refused: boxes and classes of different numbers.
    """

    boxes: Tensor
    classes: Tensor
    wanted: Tensor
    floor: float = 0.5
    overlap: float = 0.5

    kind: ClassVar[str] = "detector"

    def loss(self, outputs: Tensor) -> Tensor:
        parts, objects = candidates(outputs), Objects(self.boxes, self.classes)
        over = _overlaps(objects, parts) >= REACH
        near = _of_class(over, objects, parts)
        pushed = -_log_none(parts.log_scores).masked_fill(~near, 0).flatten(1).sum(1)
        index = self.wanted.to(outputs.device).clamp_min(0)[:, None].expand(-1, over.shape[2], -1)
        log_wanted = parts.log_scores.gather(2, index).transpose(1, 2)  # (B, M, N)
        lowest = torch.finfo(log_wanted.dtype).min
        raised = log_wanted.masked_fill(~over, lowest).logsumexp(2)
        counts = objects.present.to(outputs.device) & over.any(2)
        return pushed - torch.where(counts, raised, 0).sum(1)

    def met(self, outputs: Tensor) -> Tensor:
        return (self.became(outputs) | (self.classes < 0).to(outputs.device)).all(1)

    def became(self, outputs: Tensor) -> Tensor:
        """Which objects are found as what they are to become and no more as what they are, bool (B, M)."""
        objects, found = Objects(self.boxes, self.classes), detections(outputs, self.floor, self.overlap)
        new, old = _found(objects, self.wanted, found), _found(objects, self.classes, found)
        return (new & ~old).to(outputs.device)

    def __getitem__(self, rows: Rows) -> BoxesBecome:
        return BoxesBecome(self.boxes[rows], self.classes[rows], self.wanted[rows], self.floor, self.overlap)


def _overlaps(there: Objects, parts: Candidates) -> Tensor:
    """IoU of each object with each candidate, (B, M, N), without a graph; -1 where there is no object."""
    with torch.no_grad():
        values = iou_table(there.boxes.to(parts.boxes), parts.boxes)
    return values.masked_fill(~there.present.to(values.device)[..., None], -1)


def _of_class(over: Tensor, there: Objects, parts: Candidates) -> Tensor:
    """Where a candidate lies over an object of the class, bool (B, N, C), from over (B, M, N)."""
    near = torch.zeros_like(parts.classes, dtype=torch.float32)
    index = there.classes.to(over.device).clamp_min(0)[:, None].expand(-1, over.shape[2], -1)
    return near.scatter_add(2, index, over.transpose(1, 2).float()) > 0


def _log_none(log_scores: Tensor) -> Tensor:
    """log(1 - score), from log scores."""
    return (-torch.expm1(log_scores.clamp_max(_LEAST))).log()


def _found(there: Objects, classes: Tensor, found: Sequence[Detections]) -> Tensor:
    """Which objects have a detection of a class, (B, M), over half of them or more, bool (B, M)."""
    rows = []
    for boxes, wanted, one in zip(there.boxes.float().cpu(), classes.cpu(), found, strict=True):
        over = iou_table(boxes, one.boxes) >= HALF
        rows.append((over & (one.labels[None] == wanted[:, None])).any(1))
    return torch.stack(rows) & there.present.cpu()
