"""What is exported of a Detector or a Segmenter: from pixels to candidates, or to logits and classes of pixels."""

from __future__ import annotations

from torch import Tensor, nn

from clearsight.core.model import Model
from clearsight.engines.manifest import CANDIDATES, CLASSES, LOGITS
from clearsight.exporting.pixel_network import PixelNetwork


class DetectorNetwork(PixelNetwork):
    """Pixels (N, C, h, w) in [0, 1] -> candidates (N, M, 5 + K)."""

    outputs = (CANDIDATES,)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self.raw(pixels),)


class SegmenterNetwork(PixelNetwork):
    """Pixels (N, C, h, w) in [0, 1] -> logits (N, K, h, w), enlarged to the pixels, and classes (N, h, w)."""

    outputs = (LOGITS, CLASSES)

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.size = model.preprocess.size

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        logits = self.raw(pixels)
        if tuple(logits.shape[2:]) != tuple(self.size):  # as `Segmenter.read` does
            logits = nn.functional.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return logits, logits.argmax(1)
