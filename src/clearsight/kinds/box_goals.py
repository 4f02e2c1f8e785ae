"""What an attack on a detector is for: that objects vanish, appear, or are taken for something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from clearsight.core.boxes import iou_table
from clearsight.core.targets import Rows
from clearsight.errors import Refused
from clearsight.kinds.candidates import Candidates, candidates
from clearsight.kinds.detections import Detections, detections

HALF = 0.5  # IoU from which on a detection counts as that of an object
APART = 0.1  # IoU below which a box lies on background
REACH = 0.3  # IoU from which on a candidate is pushed: below HALF, or the box would slip away sideways
LOWEST = -1e30  # stands for the logarithm of nothing: of -inf there is no slope


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


class LabelledBoxes(Protocol):
    """The boxes (M, 4) of one picture and their classes (M,): detections, or annotated objects."""

    @property
    def boxes(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor: ...


def objects(pictures: Sequence[LabelledBoxes]) -> Objects:
    """The boxes of several pictures as objects, in pixels of the network's input."""
    most = max((len(one.boxes) for one in pictures), default=0)
    boxes, classes = torch.zeros(len(pictures), most, 4), torch.full((len(pictures), most), -1)
    for i, one in enumerate(pictures):
        boxes[i, : len(one.boxes)], classes[i, : len(one.boxes)] = one.boxes.float(), one.labels
    return Objects(boxes, classes)


@dataclass(frozen=True, eq=False)
class Vanish:
    """The goal that none of the objects is found any more: no detection of its class with an IoU of 0.5 or more.

    loss: over the candidates that overlap an object of their class, the sum of -log(1 - score), the negative logarithm
    of the chance that none of them fires.  All are pushed down, or another one would take over.  Steps of pgd down this
    loss are TOG's vanishing attack (Chow et al. 2020, arXiv:2004.04320), aimed at these objects alone.

    Args:
        boxes: (B, M, 4), in pixels of the network's input.
        classes: (B, M), -1 where a picture has fewer objects.
        floor: score that a detection must exceed.
        overlap: the detector's suppression: largest IoU of two boxes of one class.

    Refused: boxes and classes of different numbers, and classes that the model does not have.
    """

    boxes: Tensor
    classes: Tensor
    floor: float = 0.5
    overlap: float = 0.5

    kind: ClassVar[str] = "detector"

    def loss(self, outputs: Tensor) -> Tensor:
        parts, there = parts_and_objects(outputs, self.boxes, self.classes)
        near = of_class(overlaps(there, parts) >= REACH, there, parts)
        return -log_none(parts).masked_fill(~near, 0).flatten(1).sum(1)

    def met(self, outputs: Tensor) -> Tensor:
        return ~self.left(outputs).any(1)

    def surely(self, outputs: Tensor, rounding: float) -> Tensor:
        """Whether the goal is met with every class's logit higher by a share of the picture's largest."""
        return self.met(shifted(outputs, rounding))

    def left(self, outputs: Tensor) -> Tensor:
        """Which objects are still found, bool (B, M)."""
        _, there = parts_and_objects(outputs, self.boxes, self.classes)
        return found_as(there, self.classes, detections(outputs, self.floor, self.overlap)).to(outputs.device)

    def __getitem__(self, rows: Rows) -> Vanish:
        return Vanish(self.boxes[rows], self.classes[rows], self.floor, self.overlap)


@dataclass(frozen=True, eq=False)
class Appear:
    """The goal that an object of a class is found where there is none: with an IoU below 0.1 with every object.

    loss: less the logarithm of the sum of the scores of all candidates on background, so that the surest of them is
    raised most.  Steps of pgd down this loss are TOG's fabrication (Chow et al. 2020, arXiv:2004.04320) of one class.

    Args:
        wanted: (B,) number of the class that is to appear.
        boxes: (B, M, 4), in pixels of the network's input, of the objects that are there.
        classes: (B, M), -1 where a picture has fewer objects.
        floor: score that a detection must exceed.
        overlap: the detector's suppression: largest IoU of two boxes of one class.

    Refused: boxes and classes of different numbers, and classes that the model does not have.
    """

    wanted: Tensor
    boxes: Tensor
    classes: Tensor
    floor: float = 0.5
    overlap: float = 0.5

    kind: ClassVar[str] = "detector"

    def __post_init__(self) -> None:
        if self.wanted.shape != self.classes.shape[:1]:
            raise Refused(f"{tuple(self.wanted.shape)} classes that are to appear in {len(self.classes)} pictures")

    def loss(self, outputs: Tensor) -> Tensor:
        parts, there = self._parts(outputs)
        free = (overlaps(there, parts) < APART).all(1)
        rows = torch.arange(len(outputs), device=outputs.device)
        log_score = parts.log_scores[rows, :, self.wanted.to(outputs.device)]
        return -_log_sum(log_score, free)

    def met(self, outputs: Tensor) -> Tensor:
        return self.made(outputs) > 0

    def surely(self, outputs: Tensor, rounding: float) -> Tensor:
        """Whether the goal is met with every class's logit lower by a share of the picture's largest."""
        return self.met(shifted(outputs, -rounding))

    def made(self, outputs: Tensor) -> Tensor:
        """How many objects of the class are found on background, (B,)."""
        _, there = self._parts(outputs)
        found = detections(outputs, self.floor, self.overlap)
        far = on_background(there, found)
        counts = [
            int((free & (one.labels == k)).sum()) for free, one, k in zip(far, found, self.wanted.cpu(), strict=True)
        ]
        return torch.tensor(counts, device=outputs.device)

    def _parts(self, outputs: Tensor) -> tuple[Candidates, Objects]:
        parts, there = parts_and_objects(outputs, self.boxes, self.classes)
        check_classes(self.wanted, parts)
        return parts, there

    def __getitem__(self, rows: Rows) -> Appear:
        return Appear(self.wanted[rows], self.boxes[rows], self.classes[rows], self.floor, self.overlap)


@dataclass(frozen=True, eq=False)
class BoxesBecome:
    """The goal that every object is found as one of another class, and no more as one of its own.

    loss: for each object, less the logarithm of the sum of the wanted class's scores over the candidates that overlap
    it by half or more; and, over all candidates near it, the sum of -log(1 - score) of the class that it has.  Of two
    objects that overlap, a candidate that carries neither belongs to the nearer one.  Steps of pgd down this loss are
    TOG's mislabelling (Chow et al. 2020, arXiv:2004.04320).

    Args:
        boxes: (B, M, 4), in pixels of the network's input.
        classes: (B, M), -1 where a picture has fewer objects.
        wanted: (B, M) number of the class that each is to become; of no meaning where there is no object.
        floor: score that a detection must exceed.
        overlap: the detector's suppression: largest IoU of two boxes of one class.

    Refused: boxes and classes of different numbers, classes that the model does not have, and an object that is to
    become what it is.
    """

    boxes: Tensor
    classes: Tensor
    wanted: Tensor
    floor: float = 0.5
    overlap: float = 0.5

    kind: ClassVar[str] = "detector"

    def __post_init__(self) -> None:
        if self.wanted.shape != self.classes.shape:
            raise Refused(f"{tuple(self.wanted.shape)} classes to become for objects {tuple(self.classes.shape)}")
        same = (self.wanted == self.classes) & (self.classes >= 0)
        if bool(same.any()):
            raise Refused(f"an object is to become class {int(self.wanted[same][0])}, which it is", "leave it out")

    def loss(self, outputs: Tensor) -> Tensor:
        parts, there = self._parts(outputs)
        over = overlaps(there, parts)
        carries = over >= HALF
        nearest = (over >= REACH) & (over == over.amax(1, keepdim=True)) if over.shape[1] else carries
        pushed = -log_none(parts).masked_fill(~of_class(carries | nearest, there, parts), 0).flatten(1).sum(1)
        raised = torch.where(carries.any(2, keepdim=True), carries, nearest)
        log_wanted = class_columns(parts.log_scores, self.wanted)
        counts = there.present.to(outputs.device) & raised.any(2)
        return pushed - torch.where(counts, _log_sum(log_wanted, raised), 0).sum(1)

    def met(self, outputs: Tensor) -> Tensor:
        return self._all(self.became(outputs))

    def surely(self, outputs: Tensor, rounding: float) -> Tensor:
        """Whether the goal is met with every class's logit lower, or higher, by a share of the picture's largest."""
        new, _ = self._found(shifted(outputs, -rounding))
        _, old = self._found(shifted(outputs, rounding))
        return self._all(new & ~old)

    def became(self, outputs: Tensor) -> Tensor:
        """Which objects are found as what they are to become and no more as what they are, bool (B, M)."""
        new, old = self._found(outputs)
        return new & ~old

    def _all(self, became: Tensor) -> Tensor:
        return (became | (self.classes < 0).to(became.device)).all(1)

    def _found(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Which objects are found as what they are to become, and which as what they are, bool (B, M)."""
        _, there = self._parts(outputs)
        found = detections(outputs, self.floor, self.overlap)
        new, old = (found_as(there, classes, found).to(outputs.device) for classes in (self.wanted, self.classes))
        return new, old

    def _parts(self, outputs: Tensor) -> tuple[Candidates, Objects]:
        parts, there = parts_and_objects(outputs, self.boxes, self.classes)
        check_classes(self.wanted[there.present.to(self.wanted.device)], parts)
        return parts, there

    def __getitem__(self, rows: Rows) -> BoxesBecome:
        return BoxesBecome(self.boxes[rows], self.classes[rows], self.wanted[rows], self.floor, self.overlap)


def parts_and_objects(outputs: Tensor, boxes: Tensor, classes: Tensor) -> tuple[Candidates, Objects]:
    """The candidates of the outputs, and the objects with boxes (B, M, 4) and classes (B, M).

    Refused: outputs of another kind of model or for another number of pictures, and classes that the model lacks.
    """
    parts, there = candidates(outputs), Objects(boxes, classes)
    if len(there.boxes) != len(outputs):
        raise Refused(f"the goal names objects of {len(there.boxes)} pictures, but there are {len(outputs)}")
    check_classes(there.classes[there.present], parts)
    return parts, there


def check_classes(classes: Tensor, parts: Candidates) -> None:
    """Refuse numbers of classes (n,) that the model does not have."""
    most = parts.classes.shape[2] - 1
    wrong = (classes < 0) | (classes > most)
    if bool(wrong.any()):
        raise Refused(f"class {int(classes[wrong][0])}: this model has classes 0 to {most}")


def overlaps(there: Objects, parts: Candidates) -> Tensor:
    """IoU of each object with each candidate, (B, M, N), without a graph; -1 where there is no object."""
    with torch.no_grad():
        values = iou_table(there.boxes.to(parts.boxes), parts.boxes)
    return values.masked_fill(~there.present.to(values.device)[..., None], -1)


def of_class(over: Tensor, there: Objects, parts: Candidates) -> Tensor:
    """Where a candidate lies over an object of the class, bool (B, N, C), from over (B, M, N)."""
    near = torch.zeros_like(parts.classes, dtype=torch.float32)
    index = there.classes.to(over.device).clamp_min(0)[:, None].expand(-1, over.shape[2], -1)
    return near.scatter_add(2, index, over.transpose(1, 2).float()) > 0


def class_columns(values: Tensor, classes: Tensor) -> Tensor:
    """Of values of every candidate and class (B, N, C) those of the objects' classes (B, M): (B, M, N)."""
    index = classes.to(values.device).clamp(0, values.shape[2] - 1)[:, None].expand(-1, values.shape[1], -1)
    return values.gather(2, index).transpose(1, 2)


def log_none(parts: Candidates) -> Tensor:
    """log(1 - score) of every candidate and class, (B, N, C); its slope is there however sure the detector is."""
    log = nn.functional.logsigmoid
    object_there = parts.objectness[..., None]
    return torch.logaddexp(log(-object_there), log(object_there) + log(-parts.classes))


def _log_sum(log_scores: Tensor, among: Tensor) -> Tensor:
    """The logarithm of the sum of the scores (..., N) of those among; a very low number where there are none."""
    return log_scores.masked_fill(~among, LOWEST).logsumexp(-1)


def found_as(there: Objects, classes: Tensor, found: Sequence[Detections]) -> Tensor:
    """Which objects have a detection of a class, (B, M), with an IoU of half or more, bool (B, M)."""
    rows = []
    for boxes, wanted, one in zip(there.boxes.float().cpu(), classes.cpu(), found, strict=True):
        over = iou_table(boxes, one.boxes) >= HALF
        rows.append((over & (one.labels[None] == wanted[:, None])).any(1))
    return torch.stack(rows) & there.present.cpu()


def on_background(there: Objects, found: Sequence[Detections]) -> list[Tensor]:
    """Which detections of each picture overlap every object by less than a tenth, bool (M,)."""
    rows = zip(there.boxes.float().cpu(), there.present.cpu(), found, strict=True)
    return [(iou_table(boxes[present], one.boxes) < APART).all(0) for boxes, present, one in rows]


def shifted(outputs: Tensor, share: float) -> Tensor:
    """The candidates (B, N, 5 + C) with every class's logit changed by a share of the picture's largest."""
    logits = candidates(outputs).classes
    by = share * logits.flatten(1).abs().amax(1)
    return torch.cat([outputs[..., :5], logits + by.view(-1, 1, 1)], 2)
