"""From the candidates of a detector to the few boxes that it reports."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clearsight.core.boxes import suppress
from clearsight.kinds.candidates import candidates


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes that a detector reports in one picture, the surest first.

    boxes: (M, 4) float, x1, y1, x2, y2, in pixels of the network's input unless said otherwise.  scores: (M,) in
    [0, 1].  labels: (M,) int64.  raw: (M,) int64, the number of the candidate that each comes from.  probabilities:
    (M, C), the score of that candidate for every class.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    raw: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor | slice) -> Detections:
        """Some of the boxes."""
        return Detections(
            self.boxes[rows], self.scores[rows], self.labels[rows], self.raw[rows], self.probabilities[rows]
        )


def detections(outputs: Tensor, floor: float = 0.05, overlap: float = 0.5, most: int = 100) -> list[Detections]:
    """What a detector reports of each picture, without a graph.

    Every pair of a candidate and a class whose score is above the floor stands for a box; of boxes of one class that
    overlap, the surest stays; the surest of all are reported.

    Args:
        outputs: candidates (B, N, 5 + C).
        floor: lowest score of a box, which it must exceed.
        overlap: largest IoU of two boxes of one class.
        most: maximum number of boxes of a picture.

    >>> import torch
    >>> far, near = [0, 0, 10, 10, 50, 2.0], [1, 0, 10, 10, 50, 1.0]
    >>> (found,) = detections(torch.tensor([[near, far]]))
    >>> found.raw.tolist(), found.labels.tolist(), round(found.scores.item(), 3)
    ([1], [0], 0.881)
    """
    parts = candidates(outputs.detach().float().cpu())
    return [
        _of_one(boxes, scores, floor, overlap, most) for boxes, scores in zip(parts.boxes, parts.scores, strict=True)
    ]


def _of_one(boxes: Tensor, scores: Tensor, floor: float, overlap: float, most: int) -> Detections:
    """boxes: (N, 4); scores: (N, C)."""
    raw, labels = (scores > floor).nonzero(as_tuple=True)
    kept = suppress(boxes[raw], scores[raw, labels], overlap, labels)[:most]
    raw, labels = raw[kept], labels[kept]
    return Detections(boxes[raw], scores[raw, labels], labels, raw, scores[raw])
