"""What became of each detection and each object at one score and one IoU, and pictures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.place_evidence import evidence_of
from clearsight.core.text import counted
from clearsight.data.annotation_formats.regions import Size
from clearsight.data.truth_to_input import box_to_input
from clearsight.drawing.box_picture import BLUE, ORANGE, PURPLE, BoxGroup, box_picture, cut_out
from clearsight.evaluation.matching import match
from clearsight.evaluation.records import BoxSet, Flags, Numbers
from clearsight.kinds.detector import Detector
from clearsight.reporting.findings import Cell, Evidence

SCORE = 0.3  # lowest score of a box that counts, unless a check is told otherwise


@dataclass(frozen=True)
class BoxOutcomes:
    """Detections from a score on, each right, a false alarm, or neither; and which objects none of them finds.

    boxes: with these detections alone, D of them.  right, wrong: (D,).  missed: (K,) of the true boxes.
    """

    boxes: BoxSet
    right: Flags
    wrong: Flags
    missed: Flags

    def by_picture(self, which: Flags, of: str = "detections") -> Numbers:
        """How many of the detections, or of the true boxes, each picture has: (pictures,)."""
        picture = self.boxes.picture if of == "detections" else self.boxes.truth_picture
        return np.bincount(picture[which], minlength=self.boxes.pictures).astype(np.float64)


def outcomes(boxes: BoxSet, score: float, iou: float = 0.5) -> BoxOutcomes:
    """The outcomes of detections whose score is at least this, matched by COCO's rule at one IoU.

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> one = picture_boxes([[0, 0, 4, 4], [9, 9, 12, 12]], [0.9, 0.8], [1, 1], [[0, 0, 4, 4], [5, 5, 8, 8]], [1, 1])
    >>> of_one = outcomes(box_set([one]), 0.5)
    >>> of_one.right.tolist(), of_one.wrong.tolist(), of_one.missed.tolist()
    ([True, False], [False, True], [False, True])
    """
    kept = boxes.above(score)
    matches = match(kept, [iou])
    right = matches.is_right()[0]
    missed = ~boxes.crowd
    missed[matches.truth[0][right]] = False
    return BoxOutcomes(kept, right, matches.is_wrong()[0], missed)


def input_boxes(case: DetectorCase, row: int, boxes: Numbers) -> Tensor:
    """Boxes (M, 4) in the pixels of a row's picture -> in those of the model's input."""
    truth = case.pictures[row].boxes
    assert truth is not None
    return box_to_input(torch.from_numpy(boxes), truth.size, case.model.preprocess)


def facts_of_pictures(names: Sequence[str], of: BoxOutcomes) -> list[dict[str, Cell]]:
    """What became of the objects of each picture, in numbers; names: of the pictures."""
    found, false = of.by_picture(of.right), of.by_picture(of.wrong)
    missed = of.by_picture(of.missed, "objects")
    return [
        {
            "picture": name,
            "objects": int(found[i] + missed[i]),
            "found": int(found[i]),
            "missed": int(missed[i]),
            "false alarms": int(false[i]),
        }
        for i, name in enumerate(names)
    ]


def worst_first(facts: Sequence[Mapping[str, Cell]]) -> list[int]:
    """The places of pictures by how many objects are missed and boxes false alarms in them, the worst first.

    >>> a, b, c = ({"picture": name, "missed": n, "false alarms": 1} for name, n in (("x", 0), ("z", 2), ("y", 2)))
    >>> worst_first([a, b, c])
    [2, 1, 0]
    """
    return sorted(range(len(facts)), key=lambda i: (-errors_in(facts[i]), str(facts[i]["picture"])))


def errors_in(facts: Mapping[str, Cell]) -> int:
    """How many objects are missed in a picture, and how many boxes are false alarms, together."""
    return int(facts["missed"] or 0) + int(facts["false alarms"] or 0)


def words_of(facts: Mapping[str, Cell]) -> str:
    """What became of a picture's objects, for its caption."""
    objects, alarms = int(facts["objects"] or 0), int(facts["false alarms"] or 0)
    return f"{facts['missed']} of {counted(objects, 'object')} missed, {counted(alarms, 'false alarm')}"


def outcome_picture(x: Tensor, row: int, of: BoxOutcomes, size: Size, model: Detector) -> Image.Image:
    """A row's picture with the objects that were found, those that were missed, and the false alarms.

    x (C, H, W): the picture in the model's input.  size: width and height of the picture itself, in whose pixels the
    boxes are.
    """
    boxes = of.boxes
    here, true = boxes.picture == row, boxes.truth_picture == row
    found, missed, wrong = here & of.right, true & of.missed, here & of.wrong
    name = model.name

    def seen(of_picture: Numbers) -> Tensor:
        return box_to_input(torch.from_numpy(of_picture), size, model.preprocess)

    groups = [
        BoxGroup("found", seen(boxes.boxes[found]), BLUE),
        BoxGroup(
            "missed",
            seen(boxes.truth_boxes[missed]),
            ORANGE,
            dashed=True,
            words=[name(k) for k in boxes.truth_labels[missed].tolist()],
        ),
        BoxGroup(
            "false alarm",
            seen(boxes.boxes[wrong]),
            PURPLE,
            words=[
                f"{name(k)} {s:.2f}"
                for k, s in zip(boxes.labels[wrong].tolist(), boxes.scores[wrong].tolist(), strict=True)
            ],
        ),
    ]
    return box_picture(x, groups)


def close_up(
    case: DetectorCase, row: int, said: Sequence[float] | None, true: Sequence[float] | None, words: str
) -> Image.Image:
    """The part of a row's picture around a detection, an object, or both, in pixels of the picture."""
    given = [b for b in (said, true) if b is not None]
    boxes = input_boxes(case, row, np.asarray(given, dtype=np.float64))
    around = torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)]).tolist()
    part, corner = cut_out(case.pixels([row])[0], around)
    shifted = boxes - boxes.new_tensor([*corner, *corner])
    groups = []
    if true is not None:
        groups.append(BoxGroup("object", shifted[-1:], ORANGE, dashed=True))
    if said is not None:
        groups.append(BoxGroup(words, shifted[:1], PURPLE))
    return box_picture(part, groups, counts=False)


def detection_evidence(
    case: DetectorCase, check: str, name: str, detection: int, boxes: BoxSet, caption: str, facts: dict[str, Cell],
    true: int | None = None,
) -> Evidence:  # fmt: skip
    """One detection of a set, close up, beside the object that it is about, if it is about one."""
    row, label = int(boxes.picture[detection]), case.model.name(int(boxes.labels[detection]))
    said = f"{label} {boxes.scores[detection]:.2f}"
    object_box = None if true is None else boxes.truth_boxes[true].tolist()
    image = close_up(case, row, boxes.boxes[detection].tolist(), object_box, said)
    return evidence_of(case, row, name, image, caption, facts, check)
