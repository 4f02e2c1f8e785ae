"""The score of a box as a target: what is explained in a detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from clearsight.core.boxes import iou
from clearsight.core.targets import Rows
from clearsight.errors import Refused, nearest
from clearsight.kinds.candidates import Candidates, candidates
from clearsight.kinds.detections import Detections

BoxOf = Literal["class", "objectness", "margin", "log-score", "score"]
Match = Literal["matched", "raw", "soft"]


@dataclass(frozen=True, eq=False)
class BoxScore:
    """The score that a box is of a class, as a target: candidates (B, N, 5 + K) -> (B,).

    One box of each picture is explained.  Which candidates stand for it in a changed picture is what `match` says.

    Args:
        boxes: (B, 4), x1, y1, x2, y2 in pixels of the network's input.
        classes: (B,) number of each box's class.
        raw: (B,) number of the candidate that each box came from; None where that is unknown.
        of: "objectness" is the logit of there being an object, why here; "class" that of the class, why this one;
            "margin" is the class's logit less that of another one, why not that one; "log-score" is the logarithm of
            the product of the first two's probabilities, and "score" the product itself, whose slope vanishes where it
            is near 1.
        match: "matched" takes, of the candidates of the moment, the one whose IoU with the box times its score for the
            class is largest, as it is reported; which one that is has no slope.  "raw" takes always the candidate
            `raw`, a smooth function of the picture, also when another one carries the object now.  "soft" takes all
            that overlap the box by half or more: the logarithm of the sum of exponentials.  Where no candidate
            overlaps the box, "soft" and "matched" take all of them.
        against: (B,) number of the class that "margin" compares with; None for the best other one of each candidate.

    Refused: boxes, classes and candidates of different numbers, another score or match, "raw" without numbers, a class
    against itself, and against where no margin is asked for.

    >>> outputs = torch.tensor([[[0.0, 0, 10, 10, 50, 2], [20, 20, 30, 30, 50, 3]]])
    >>> BoxScore(torch.tensor([[0.0, 0, 9, 10]]), torch.tensor([0]))(outputs).item()
    2.0
    """

    boxes: Tensor
    classes: Tensor
    raw: Tensor | None = None
    of: BoxOf = "class"
    match: Match = "matched"
    against: Tensor | None = None

    kind: ClassVar[str] = "detector"

    def __post_init__(self) -> None:
        if self.boxes.dim() != 2 or self.boxes.shape[1] != 4 or self.classes.shape != self.boxes.shape[:1]:
            raise Refused(
                f"boxes {tuple(self.boxes.shape)} and classes {tuple(self.classes.shape)}",
                "give one box (B, 4) and one class (B,) for each picture",
            )
        for word, known in ((self.of, get_args(BoxOf)), (self.match, get_args(Match))):
            if word not in known:
                raise Refused(f"a box's score {word!r}: {nearest(str(word), known)}")
        if self.match == "raw" and self.raw is None:
            raise Refused('match="raw" needs the number of each box\'s candidate: raw=found.raw')
        if self.raw is not None and self.raw.shape != self.classes.shape:
            raise Refused(f"{len(self.raw)} candidates for {len(self.classes)} boxes: give one for each")
        if self.against is not None:
            _check_other_classes(self.classes, self.against, self.of)

    def __call__(self, outputs: Tensor) -> Tensor:
        parts = candidates(outputs)
        if len(outputs) != len(self.boxes):
            raise Refused(f"the target names boxes in {len(self.boxes)} pictures, but there are {len(outputs)}")
        for named in (self.classes, self.against):
            if named is not None and len(named) and int(named.max()) >= parts.classes.shape[2]:
                raise Refused(f"class {int(named.max())}: this model has classes 0 to {parts.classes.shape[2] - 1}")
        value = self._values(parts)
        if self.match == "soft":
            with torch.no_grad():
                near = iou(self.boxes.to(outputs)[:, None], parts.boxes) >= 0.5
            near = near | ~near.any(1, keepdim=True)
            return value.masked_fill(~near, -torch.inf).logsumexp(1)
        rows = torch.arange(len(outputs), device=outputs.device)
        return value[rows, self._matched(parts) if self.match == "matched" else self.stands_for(parts)]

    def _values(self, parts: Candidates) -> Tensor:
        """What is asked, of every candidate: (B, N)."""
        if self.of == "objectness":
            return parts.objectness
        rows, classes = torch.arange(len(parts.boxes), device=parts.boxes.device), self.classes.to(parts.boxes.device)
        logit = parts.classes[rows, :, classes]
        if self.of == "class":
            return logit
        if self.of == "margin":
            if self.against is not None:
                return logit - parts.classes[rows, :, self.against.to(rows.device)]
            if parts.classes.shape[2] < 2:
                raise Refused('of="margin" compares two classes, and this model has one: ask of="class"')
            own = classes[:, None, None].expand(-1, parts.classes.shape[1], 1)
            return logit - parts.classes.scatter(2, own, -torch.inf).amax(2)
        log_score = nn.functional.logsigmoid(parts.objectness) + nn.functional.logsigmoid(logit)
        return log_score if self.of == "log-score" else log_score.exp()

    def stands_for(self, parts: Candidates) -> Tensor:
        """The candidate that each box came from, (B,); where that is unknown, the one that matches it."""
        return self._matched(parts) if self.raw is None else self.raw.to(parts.boxes.device)

    def _matched(self, parts: Candidates) -> Tensor:
        """The candidate whose IoU with the box times its score for the class is largest, (B,)."""
        rows = torch.arange(len(parts.boxes), device=parts.boxes.device)
        with torch.no_grad():
            score = parts.objectness.sigmoid() * parts.classes[rows, :, self.classes.to(rows.device)].sigmoid()
            overlap = iou(self.boxes.to(parts.boxes)[:, None], parts.boxes)
            fit = torch.where((overlap > 0).any(1, keepdim=True), overlap * score, score)
        return fit.argmax(1)

    def __getitem__(self, rows: Rows) -> BoxScore:
        raw, against = (None if numbers is None else numbers[rows] for numbers in (self.raw, self.against))
        return BoxScore(self.boxes[rows], self.classes[rows], raw, self.of, self.match, against)

    def words(self, labels: tuple[str, ...]) -> list[str]:
        places = [", ".join(f"{side:.0f}" for side in box) for box in self.boxes.tolist()]
        asked = [f"{self.of} of {labels[k]}" for k in self.classes.tolist()]
        if self.of == "margin":
            others = ["any other"] * len(asked) if self.against is None else [labels[k] for k in self.against.tolist()]
            asked = [f"{labels[k]} rather than {o}" for k, o in zip(self.classes.tolist(), others, strict=True)]
        return [f"{what} at ({place})" for what, place in zip(asked, places, strict=True)]


def box_scores(
    found: Detections, of: BoxOf = "class", match: Match = "matched", against: Tensor | None = None
) -> BoxScore:
    """The scores of boxes that were found in one picture, as a target of as many copies of it: one map for each box."""
    return BoxScore(found.boxes, found.labels, found.raw, of, match, against)


def _check_other_classes(classes: Tensor, against: Tensor, of: BoxOf) -> None:
    if of != "margin":
        raise Refused(f'against= is for of="margin", and of="{of}" is asked: leave one of them out')
    if against.shape != classes.shape:
        raise Refused(f"{len(against)} classes to compare with for {len(classes)} boxes: give one for each")
    if bool((against == classes).any()):
        raise Refused("a margin compares two classes, but both are the same: give another one against it")
