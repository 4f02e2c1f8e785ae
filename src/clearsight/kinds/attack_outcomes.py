"""What an attack did to each object of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from clearsight.core.boxes import iou_table
from clearsight.kinds.box_goals import APART, HALF, Objects, on_background
from clearsight.kinds.detections import Detections

Fate = Literal["kept", "mislabelled", "displaced", "vanished"]
FATES: tuple[Fate, ...] = get_args(Fate)


@dataclass(frozen=True, eq=False)
class ObjectFates:
    """What became of the objects of B pictures.

    of_objects: for each picture the fate of each of its objects, in their order.  fabricated: (B,) number of boxes on
    background, which overlap every object by less than 0.1.
    """

    of_objects: tuple[tuple[Fate, ...], ...]
    fabricated: Tensor

    def counts(self) -> dict[Fate, int]:
        """How many objects had each fate.

        >>> ObjectFates((("kept", "vanished"), ("kept",)), torch.tensor([0, 2])).counts()
        {'kept': 2, 'mislabelled': 0, 'displaced': 0, 'vanished': 1}
        """
        every = [fate for one in self.of_objects for fate in one]
        return {fate: every.count(fate) for fate in FATES}


def object_fates(there: Objects, found: Sequence[Detections]) -> ObjectFates:
    """What became of each object, by what a detector finds of it after an attack.

    kept: a detection of its class with an IoU of 0.5 or more.  mislabelled: none, but one of another class there.
    displaced: none of these, but one of its class with an IoU of 0.1 to 0.5.  vanished: nothing of all that.  A
    detection that is right for another object is no mistake about this one.

    Args:
        there: the objects, or what the detector found in the clean pictures.
        found: the detections in the attacked pictures, above the score that counts.

    Refused: detections of another number of pictures.

    >>> there = Objects(torch.tensor([[[0.0, 0, 10, 10], [20, 0, 30, 10]]]), torch.tensor([[0, 0]]))
    >>> box, none = torch.tensor([[0.0, 0, 10, 4]]), torch.zeros(1)
    >>> moved = Detections(box, none, torch.tensor([0]), torch.tensor([0]), torch.zeros(1, 2))
    >>> object_fates(there, [moved]).of_objects
    (('displaced', 'vanished'),)
    """
    rows = zip(there.boxes.float().cpu(), there.classes.cpu(), found, strict=True)
    fates = tuple(_of_picture(boxes[classes >= 0], classes[classes >= 0], one) for boxes, classes, one in rows)
    fabricated = torch.tensor([int(free.sum()) for free in on_background(there, found)], dtype=torch.long)
    return ObjectFates(fates, fabricated)


def _of_picture(boxes: Tensor, classes: Tensor, found: Detections) -> tuple[Fate, ...]:
    over = iou_table(boxes, found.boxes.float().cpu())
    same = classes[:, None] == found.labels[None].cpu()
    # a detection that is right for a neighbour says nothing of this object
    elsewhere = ((over >= HALF) & same).any(0)
    kept = ((over >= HALF) & same).any(1)
    mislabelled = ((over >= HALF) & ~same & ~elsewhere).any(1)
    displaced = ((over >= APART) & (over < HALF) & same & ~elsewhere).any(1)
    fates: list[Fate] = []
    for k, m, d in zip(kept.tolist(), mislabelled.tolist(), displaced.tolist(), strict=True):
        if k:
            fates.append("kept")
        elif m:
            fates.append("mislabelled")
        else:
            fates.append("displaced" if d else "vanished")
    return tuple(fates)
