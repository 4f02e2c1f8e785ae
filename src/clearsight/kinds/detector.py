"""A detector: boxes with a class and a score."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.model_parts import class_names, network_given
from clearsight.errors import Refused
from clearsight.kinds.detections import Detections, detections
from clearsight.kinds.forms import detector_form


@dataclass(frozen=True, eq=False)
class Detector(Model):
    """A network that finds objects, its preprocessing and its labels.

    Called with pixels (B, C, H, W) in [0, 1] it returns candidates (B, N, 5 + K), differentiable: x1, y1, x2, y2 in
    pixels of the network's input, a logit of there being an object, and a logit for each of the K classes.  The score
    of a candidate for a class is sigmoid(objectness) * sigmoid(class).  N is the same for all pictures of one size;
    `detect` gives the boxes that are left after the floor and the suppression.

    Args:
        net: the network, from normalised pictures (B, C, H, W) to candidates, such as one of the catalogue's
            `detectors`.
        preprocess: how a picture file becomes what the network takes.
        labels: names of the K classes, in the order of the scores; background is none of them.
        source: words that load it again.
        output: which part of a tuple or dict that the network returns holds the candidates.
        floor: lowest score of a box that is reported.
        overlap: largest IoU of two reported boxes of one class.
        most: maximum number of boxes reported in a picture.
        channels_last: always pass pictures in that memory order, in which convolutions are faster; not for networks
            that call .view() on feature maps.  Explainers and attacks do so where a network gives the same.

    Refused: what is no network, networks frozen by torch.jit.freeze or recorded in training mode, what is no
    Preprocess, labels that are a string or none, a floor or an overlap outside 0 to 1, and fewer boxes than 1.

    >>> from clearsight.testing import tiny_detector
    >>> model = tiny_detector()
    >>> tuple(model(torch.zeros(2, 3, 32, 32)).shape), len(model.detect(torch.zeros(2, 3, 32, 32)))
    ((2, 64, 7), 2)
    """

    floor: float = 0.05
    overlap: float = 0.5
    most: int = 100

    kind: ClassVar[str] = "detector"

    def __post_init__(self) -> None:
        object.__setattr__(self, "net", network_given(self.net, self.preprocess, "Detector"))
        object.__setattr__(self, "labels", class_names(self.labels, "class logits, background left out"))
        for name, value in (("floor", self.floor), ("overlap", self.overlap)):
            if not 0 <= value <= 1:
                raise Refused(f"a detector's {name} is {value:g}: give one from 0 to 1")
        if self.most < 1:
            raise Refused(f"a detector that reports at most {self.most} boxes: give at least 1")

    def read(self, z: Tensor, out: Tensor) -> Tensor:
        """Candidates (B, N, 5 + K) of what the network returned.  Refused: another shape."""
        wrong = detector_form(out, len(z), len(self.labels))
        if wrong is not None:
            raise Refused(wrong.what, wrong.mend)
        return out

    @property
    def reading(self) -> Hashable:
        """All that decides, besides the network and its preprocessing, what the outputs are."""
        return self.kind, self.output

    def detections(self, outputs: Tensor) -> list[Detections]:
        """The boxes of each picture, from candidates (B, N, 5 + K): after the floor and the suppression."""
        return detections(outputs, self.floor, self.overlap, self.most)

    def detect(self, x: Tensor) -> list[Detections]:
        """The boxes of each picture x (B, C, H, W) in [0, 1], in pixels of x."""
        with self.undisturbed(), torch.no_grad():
            return self.detections(self(x.to(self.device)))
