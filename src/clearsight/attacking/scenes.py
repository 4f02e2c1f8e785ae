"""What `attack` is given of a detector or a segmenter: pictures, the truth about them, and what it is to do to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.targets import Goal, Rows
from clearsight.errors import Refused, nearest
from clearsight.internals.scores import scores
from clearsight.kinds.box_goals import Appear, BoxesBecome, Objects, Vanish, objects
from clearsight.kinds.detector import Detector
from clearsight.kinds.misdetect import Misdetect
from clearsight.kinds.region_goals import UNJUDGED, PixelsBecome, PixelsMisread
from clearsight.kinds.segmenter import Segmenter

Aim = Literal["vanish", "appear", "become", "anything", "misread"]
OF_DETECTORS: tuple[Aim, ...] = ("vanish", "appear", "become", "anything")
OF_SEGMENTERS: tuple[Aim, ...] = ("misread", "become")


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures as a detector or a segmenter takes them, and the truth about them where it is known.

    x: pixels (B, C, H, W) in [0, 1].  names: of the B pictures.  truth: the objects, in pixels of x; or the class of
    every pixel, int64 (B, H, W), 255 where it does not count; None where nothing is known.  source: words that open
    them again.

    Refused: no picture, and another number of names or of truths than of pictures.
    """

    x: Tensor
    names: tuple[str, ...]
    truth: Objects | Tensor | None = None
    source: str = ""

    def __post_init__(self) -> None:
        truths = len(self.x) if self.truth is None else _number(self.truth)
        if not 0 < len(self.x) == len(self.names) == truths:
            raise Refused(f"{len(self.x)} pictures, {len(self.names)} names and {truths} truths: give one of each")

    def __getitem__(self, rows: Rows) -> Scenes:
        numbers = torch.arange(len(self.names))[rows].tolist()
        truth = None if self.truth is None else self.truth[rows]
        return Scenes(self.x[rows], tuple(self.names[i] for i in numbers), truth, self.source)


def _number(truth: Objects | Tensor) -> int:
    return len(truth.boxes) if isinstance(truth, Objects) else len(truth)


def truth_of(model: Detector | Segmenter, scenes: Scenes, floor: float, batch: int | None = None) -> Objects | Tensor:
    """What counts as right: the annotations, or without them what the model says of the clean pictures.

    floor: score that a box must exceed to count as an object.

    Refused: truth of another kind than the model's.
    """
    if isinstance(scenes.truth, Objects | Tensor):
        if isinstance(scenes.truth, Objects) != isinstance(model, Detector):
            given = "boxes" if isinstance(scenes.truth, Objects) else "classes of pixels"
            raise Refused(f"the truth is {given}, and the model is a {model.kind}")
        return scenes.truth
    with model.undisturbed():
        outputs = scores(model, scenes.x.to(model.device), batch)
    if isinstance(model, Segmenter):
        return outputs.argmax(1).cpu()
    return objects([one[one.scores > floor] for one in model.detections(outputs)])


def goal_of_scenes(
    model: Detector | Segmenter, truth: Objects | Tensor, aim: Aim | None, target: str | None, floor: float
) -> Goal:
    """The goal that a word names; by default that objects vanish, or that all pixels are misread.

    target: the class for "appear" and "become".  Objects and pixels that are of it already are left out.  A segmenter's
    goals are met where all pixels are, so that an attack that stops early goes on for as many as it can.

    Refused: words of the other kind, a class where none is used, none where one is, and pictures of which nothing is
    left to attack.
    """
    known = OF_DETECTORS if isinstance(model, Detector) else OF_SEGMENTERS
    aim = known[0] if aim is None else aim
    if aim not in known:
        other = "" if aim not in get_args(Aim) else f", which is not of a {model.kind}"
        raise Refused(f"goal {aim!r}{other}", f"{nearest(aim, known)}")
    if (aim in ("appear", "become")) != (target is not None):
        raise Refused(f"goal {aim} {'has no class' if target else 'needs a class'}", "target names one (--target)")
    k = 0 if target is None else model.index(target)
    if isinstance(truth, Objects):
        return _of_objects(model, truth, aim, k, floor)
    if aim == "misread":
        return PixelsMisread(truth, share=1.0)
    wanted = torch.where((truth == UNJUDGED) | (truth == k), UNJUDGED, k)
    if not bool((wanted != UNJUDGED).flatten(1).any(1).all()):
        raise Refused(f"a picture is {model.name(k)} already wherever it counts", "leave it out, or name another class")
    return PixelsBecome(wanted, share=1.0)


def _of_objects(model: Model, truth: Objects, aim: Aim, k: int, floor: float) -> Goal:
    overlap = model.overlap if isinstance(model, Detector) else 0.5
    boxes, classes = truth.boxes, truth.classes
    if aim == "vanish":
        return Vanish(boxes, classes, floor, overlap)
    if aim == "anything":
        return Misdetect(boxes, classes, floor, overlap)
    if aim == "appear":
        return Appear(torch.full((len(boxes),), k), boxes, classes, floor, overlap)
    others = torch.where(classes == k, -1, classes)
    return BoxesBecome(boxes, others, torch.full_like(others, k), floor, overlap)
