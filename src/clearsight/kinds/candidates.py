"""The outputs of a detector: candidates (B, N, 5 + C), and the parts of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from clearsight.errors import Refused


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a detector's outputs (B, N, 5 + C) hold; every part is a view of them.

    boxes: (B, N, 4), x1, y1, x2, y2 in pixels of the network's input.  objectness: logits (B, N).  classes: logits
    (B, N, C).

    The score of a candidate for a class is sigmoid(objectness) * sigmoid(class).
    """

    boxes: Tensor
    objectness: Tensor
    classes: Tensor

    @property
    def log_scores(self) -> Tensor:
        """The logarithm of every score, (B, N, C)."""
        log = nn.functional.logsigmoid
        return log(self.objectness)[..., None] + log(self.classes)

    @property
    def scores(self) -> Tensor:
        """Every score, (B, N, C), in [0, 1]."""
        return self.objectness.sigmoid()[..., None] * self.classes.sigmoid()


def candidates(outputs: Tensor) -> Candidates:
    """The parts of a detector's outputs (B, N, 5 + C).

    Refused: outputs of another shape, which are those of another kind of model.
    """
    if outputs.dim() != 3 or outputs.shape[2] < 6:
        raise Refused(
            f"outputs {tuple(outputs.shape)} are not those of a detector, (B, N, 5 + C)",
            "a box's score is explained and attacked in a Detector",
        )
    return Candidates(outputs[..., :4], outputs[..., 4], outputs[..., 5:])
