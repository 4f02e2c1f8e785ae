"""The goal that a detector is wrong about anything at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clearsight.core.boxes import iou_table
from clearsight.core.targets import Rows
from clearsight.errors import Refused
from clearsight.kinds.box_goals import (
    HALF,
    LOWEST,
    REACH,
    class_columns,
    found_as,
    log_none,
    of_class,
    overlaps,
    parts_and_objects,
    shifted,
)
from clearsight.kinds.detections import Detections, detections


@dataclass(frozen=True, eq=False)
class Misdetect:
    """The goal that anything is wrong: an object is not found, or a box is reported that is that of no object.

    A box is that of an object if it has its class and an IoU of 0.5 or more with it.

    loss: less the logarithm of the sum of the odds of every mistake, against those of the floor: of a false box by its
    score, of a missing object by the sum over the candidates that carry it.  So the nearest mistake counts most, and
    its slope stays however sure the detector is.  Candidates that overlap an object of their class by 0.3 to 0.5 count
    for neither.  TOG's untargeted attack (Chow et al. 2020, arXiv:2004.04320) goes up the loss of training instead,
    whose slope vanishes where the detector is sure.

    Args:
        boxes: (B, M, 4), in pixels of the network's input: the objects, or what the detector finds in clean pictures.
        classes: (B, M), -1 where a picture has fewer objects.
        floor: score that a detection must exceed.
        overlap: the detector's suppression: largest IoU of two boxes of one class.

    Refused: boxes and classes of different numbers, classes that the model does not have, a floor of 0 or 1.

    >>> goal = Misdetect(torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[0]]))
    >>> right, missed = [0.0, 0, 10, 10, 50, 2], [0.0, 0, 10, 10, 50, -2]
    >>> goal.met(torch.tensor([[right]])).item(), goal.met(torch.tensor([[missed]])).item()
    (False, True)
    """

    boxes: Tensor
    classes: Tensor
    floor: float = 0.5
    overlap: float = 0.5

    kind: ClassVar[str] = "detector"

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise Refused(f"floor {self.floor:g}: give a score above 0 and below 1")

    def loss(self, outputs: Tensor) -> Tensor:
        parts, there = parts_and_objects(outputs, self.boxes, self.classes)
        over = overlaps(there, parts)
        at_floor = math.log(self.floor) - math.log1p(-self.floor)
        log_odds = parts.log_scores - log_none(parts) - at_floor  # of each candidate and class, (B, N, C)
        near = of_class(over >= REACH, there, parts)
        false = log_odds.masked_fill(near, LOWEST).flatten(1)
        carries = over >= HALF
        carries = torch.where(carries.any(2, keepdim=True), carries, over >= REACH)
        carried = class_columns(log_odds, self.classes).masked_fill(~carries, LOWEST).logsumexp(2)
        counts = there.present.to(over.device) & carries.any(2)
        missing = torch.where(counts, -carried, LOWEST)
        return -torch.cat([false, missing], 1).logsumexp(1)

    def met(self, outputs: Tensor) -> Tensor:
        return self._missing(outputs) | self._false(outputs)

    def surely(self, outputs: Tensor, rounding: float) -> Tensor:
        """Whether an object is missing with higher logits or a box false with lower ones, by a share of the largest."""
        return self._missing(shifted(outputs, rounding)) | self._false(shifted(outputs, -rounding))

    def _missing(self, outputs: Tensor) -> Tensor:
        _, there = parts_and_objects(outputs, self.boxes, self.classes)
        found = found_as(there, self.classes, detections(outputs, self.floor, self.overlap))
        return (there.present.cpu() & ~found).any(1).to(outputs.device)

    def _false(self, outputs: Tensor) -> Tensor:
        found = detections(outputs, self.floor, self.overlap)
        return torch.tensor([bool(n) for n in self.false_alarms(found)], device=outputs.device)

    def false_alarms(self, found: Sequence[Detections]) -> list[int]:
        """How many boxes of each picture are those of no object."""
        counts = []
        for boxes, classes, one in zip(self.boxes.float().cpu(), self.classes.cpu(), found, strict=True):
            own = (iou_table(boxes, one.boxes) >= HALF) & (classes[:, None] == one.labels[None])
            counts.append(int((~own.any(0)).sum()))
        return counts

    def __getitem__(self, rows: Rows) -> Misdetect:
        return Misdetect(self.boxes[rows], self.classes[rows], self.floor, self.overlap)
