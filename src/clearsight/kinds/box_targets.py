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

BoxOf = Literal["class", "objectness", "log-score", "score"]
Match = Literal["matched", "raw", "soft"]


@dataclass(frozen=True, eq=False)
class BoxScore:
    """The score that a box is of a class, as a target: candidates (B, N, 5 + K) -> (B,).

    One box of each picture is explained.  Which candidates stand for it in a changed picture is what `match` says.

    Args:
        boxes: (B, 4), x1, y1, x2, y2 in pixels of the network's input.
        classes: (B,) number of each box's class.
        raw: (B,) number of the candidate that each box came from; None where that is unknown.
        of: "class" is the class's logit and "objectness" that of there being an object; "log-score" is the logarithm of
            their probabilities' product, and "score" the product itself, whose slope vanishes where it is near 1.
        match: "matched" takes, of the candidates of the moment, the one whose IoU with the box times its score for the
            class is largest, as it is reported; which one that is has no slope.  "raw" takes always the candidate
            `raw`, a smooth function of the picture, also when another one carries the object now.  "soft" takes all
            that overlap the box by half or more: the logarithm of the sum of exponentials.  Where no candidate
            overlaps the box, "soft" and "matched" take all of them.

    Refused: boxes, classes and candidates of different numbers, another score or match, "raw" without numbers.

    >>> outputs = torch.tensor([[[0.0, 0, 10, 10, 50, 2], [20, 20, 30, 30, 50, 3]]])
    >>> BoxScore(torch.tensor([[0.0, 0, 9, 10]]), torch.tensor([0]))(outputs).item()
    2.0
    """

    boxes: Tensor
    classes: Tensor
    raw: Tensor | None = None
    of: BoxOf = "class"
    match: Match = "matched"

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

    def __call__(self, outputs: Tensor) -> Tensor:
        parts = candidates(outputs)
        if len(outputs) != len(self.boxes):
            raise Refused(f"the target names boxes in {len(self.boxes)} pictures, but there are {len(outputs)}")
        if len(self.classes) and int(self.classes.max()) >= parts.classes.shape[2]:
            raise Refused(f"class {int(self.classes.max())}: this model has classes 0 to {parts.classes.shape[2] - 1}")
        rows, classes = torch.arange(len(outputs), device=outputs.device), self.classes.to(outputs.device)
        logit = parts.classes[rows, :, classes]
        log_score = nn.functional.logsigmoid(parts.objectness) + nn.functional.logsigmoid(logit)
        values = {"class": logit, "objectness": parts.objectness, "log-score": log_score, "score": log_score.exp()}
        value = values[self.of]
        if self.match == "soft":
            with torch.no_grad():
                near = iou(self.boxes.to(outputs)[:, None], parts.boxes) >= 0.5
            near = near | ~near.any(1, keepdim=True)
            return value.masked_fill(~near, -torch.inf).logsumexp(1)
        return value[rows, self._matched(parts) if self.match == "matched" else self.stands_for(parts)]

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
        raw = None if self.raw is None else self.raw[rows]
        return BoxScore(self.boxes[rows], self.classes[rows], raw, self.of, self.match)

    def words(self, labels: tuple[str, ...]) -> list[str]:
        places = [", ".join(f"{side:.0f}" for side in box) for box in self.boxes.tolist()]
        return [f"{self.of} of {labels[k]} at ({p})" for k, p in zip(self.classes.tolist(), places, strict=True)]


def box_scores(found: Detections, of: BoxOf = "class", match: Match = "matched") -> BoxScore:
    """The scores of boxes that were found in one picture, as a target of as many copies of it: one map for each box."""
    return BoxScore(found.boxes, found.labels, found.raw, of, match)
