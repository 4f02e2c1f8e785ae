"""Detection networks of torchvision without their resizing: padded pictures, truth in their form, one stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.core.light_imports import without_compiler
from clearsight.detectors.common.candidates import candidates, clip
from clearsight.detectors.common.frozen_norm import freeze_norm
from clearsight.detectors.common.requests import check_truth

Outputs = dict[str, Tensor]


def detection() -> Any:
    """torchvision.models.detection."""
    with without_compiler():
        from torchvision.models import detection as found

    return found


def padded(z: Tensor, multiple: int, count: int | None = None) -> Any:
    """Normalised pictures (B, C, H, W) as torchvision's list, with zeros right and below up to a multiple of a size.

    Its own transform does the same after it has normalised and resized.  count: how many of them the list says there
    are; None for all.
    """
    with without_compiler():
        from torchvision.models.detection.image_list import ImageList

    height, width = z.shape[2:]
    more = [math.ceil(side / multiple) * multiple - side for side in (width, height)]
    return ImageList(F.pad(z, (0, more[0], 0, more[1])), [(height, width)] * (len(z) if count is None else count))


def as_targets(boxes: list[Tensor], labels: list[Tensor], z: Tensor) -> list[dict[str, Tensor]]:
    """Truth in torchvision's form, where class 0 is background."""
    return [{"boxes": b.to(z), "labels": c.to(z.device) + 1} for b, c in zip(boxes, labels, strict=True)]


@contextmanager
def in_mode(training: bool, modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, these modules believe to be in training or not; the modules inside of them do not hear of it."""
    were = [m.training for m in modules]
    try:
        for m in modules:
            m.training = training
        yield
    finally:
        for m, was in zip(modules, were, strict=True):
            m.training = was


class OneStage(nn.Module):
    """A network of torchvision with anchors or places, behind the contract of detectors.

    net: the network, whose transform is not used; classes: without background; multiple: what the sides are padded to.
    boxes: (net, outputs of the head, anchors (N, 4)) -> (B, N, 4).
    logits: outputs of the head -> objectness (B, N, 1) and classes (B, N, classes).
    losses: (net, truth, outputs of the head, anchors of each picture, places of each level) -> its losses.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: int,
        multiple: int,
        boxes: Callable[[Any, Outputs, Tensor], Tensor],
        logits: Callable[[Outputs], tuple[Tensor, Tensor]],
        losses: Callable[[Any, list[Outputs], Outputs, list[Tensor], list[int]], Outputs],
        *,
        freeze: bool,
    ) -> None:
        super().__init__()
        self.net: Any = net
        self.classes, self.multiple, self.freeze = classes, multiple, freeze
        self._boxes, self._logits, self._losses = boxes, logits, losses

    def train(self, mode: bool = True) -> OneStage:
        super().train(mode)
        if self.freeze:
            freeze_norm(self)
        return self

    def forward(self, z: Tensor) -> Tensor:
        outputs, anchors, _ = self._run(z, 1)  # the anchors of one: a fixed number of pictures cannot be exported
        boxes = clip(self._boxes(self.net, outputs, anchors[0]), z.shape[2], z.shape[3])
        return candidates(boxes, *self._logits(outputs))

    def loss(self, z: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
        """torchvision's own training losses.

        z (B, C, H, W); boxes: (M, 4) of each picture in pixels; labels: (M,) of each picture, int64 from 0.
        """
        check_truth(z, boxes, labels, self.classes)
        outputs, anchors, counts = self._run(z, len(z))
        return self._losses(self.net, as_targets(boxes, labels, z), outputs, anchors, counts)

    def _run(self, z: Tensor, count: int) -> tuple[Outputs, list[Tensor], list[int]]:
        """What the head gives, the anchors (N, 4) of as many pictures as are counted, and the places of each level."""
        images = padded(z, self.multiple, count)
        features = list(self.net.backbone(images.tensors).values())
        return self.net.head(features), self.net.anchor_generator(images, features), [f[0, 0].numel() for f in features]
