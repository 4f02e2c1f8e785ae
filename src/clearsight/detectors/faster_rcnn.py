"""Ren, He, Girshick & Sun 2015, arXiv:1506.01497: a network proposes regions, a second stage names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.detectors.common.candidates import ABSENT, CERTAIN, candidates, clip, of_softmax
from clearsight.detectors.common.frozen_norm import freeze_norm
from clearsight.detectors.common.requests import check_option, check_shape, check_truth
from clearsight.detectors.common.torchvision_nets import as_targets, detection, in_mode, padded
from clearsight.errors import Refused

_BUILDERS = {"resnet50": "fasterrcnn_resnet50_fpn", "mobilenet-320": "fasterrcnn_mobilenet_v3_large_320_fpn"}
_SMALLEST = 1e-2  # pixels: torchvision leaves out thinner boxes


@method(paper="arXiv:1506.01497", order=3)
def faster_rcnn(
    classes: int = 90,
    shape: tuple[int, ...] = (3, 800, 800),
    *,
    backbone: Literal["resnet50", "mobilenet-320"] = "resnet50",
    proposals: int | None = None,
    freeze: bool = True,
) -> nn.Module:
    """The Faster R-CNN of torchvision: regions are proposed, pooled and named, and each class mends their boxes.

    (B, *shape) -> candidates (B, proposals · classes, 5 + classes), boxes in pixels; the classes of a proposal one
    after the other, as each has a box of its own: its logit stands in that row alone, those of others are -50 there.

    The network inside, ``net``, is torchvision's with random weights.  Its scores are a softmax over the classes and
    background; the logit of a class is that of its probability.  There is no objectness: its logit is 50, and -50 in
    rows that fill up the number.  Proposals come from the picture itself, so a changed picture has others:
    ``with net.proposals_of(z): ...`` keeps those of z for all pictures that are given inside.

    Args:
        backbone: features and settings: "resnet50" with a pyramid, or "mobilenet-320", MobileNetV3-Large for pictures
            of 320 pixels.
        proposals: number of regions for each picture, at least 1; none is torchvision's, 1000 and 150.
        freeze: BatchNorm keeps its statistics in training, as batches of few pictures ask for.

    Refused: pictures below 32 × 32 pixels or of other than 3 channels, fewer than one class or proposal.

    Source: arXiv:1506.01497, section 3.

    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in faster_rcnn(90).parameters())  # torchvision says 41755286, without BatchNorm
    41808406
    """
    check_shape("faster-rcnn", classes, shape, 32, colours=True)
    if proposals is not None:
        check_option("faster-rcnn", "proposals", proposals, 1)
    build = getattr(detection(), _BUILDERS[backbone])
    more = {} if proposals is None else {"rpn_post_nms_top_n_test": proposals}
    net = build(weights=None, weights_backbone=None, num_classes=classes + 1, **more)
    return FasterRcnn(net, classes, freeze)


class FasterRcnn(nn.Module):
    """The network that ``faster_rcnn`` describes."""

    def __init__(self, net: nn.Module, classes: int, freeze: bool) -> None:
        super().__init__()
        self.net: Any = net
        self.classes, self.freeze = classes, freeze
        self._kept: list[Tensor] | None = None

    def train(self, mode: bool = True) -> FasterRcnn:
        super().train(mode)
        if self.freeze:
            freeze_norm(self)
        return self

    def forward(self, z: Tensor) -> Tensor:
        net, images = self.net, padded(z, 32)
        features = net.backbone(images.tensors)
        regions = self._regions(images, features)
        pooled = net.roi_heads.box_roi_pool(features, regions, images.image_sizes)
        logits, change = net.roi_heads.box_predictor(net.roi_heads.box_head(pooled))
        boxes = net.roi_heads.box_coder.decode(change, regions).reshape(-1, self.classes + 1, 4)  # (0, ...) of none
        boxes = clip(boxes[:, 1:], z.shape[2], z.shape[3])
        classes = of_softmax(logits)[:, 1:]
        own = torch.eye(self.classes, dtype=torch.bool, device=z.device)
        rows = torch.where(own, classes[:, None], ABSENT)  # (all regions, row of a class, classes)
        thin = ((boxes[..., 2:] - boxes[..., :2]) < _SMALLEST).any(2, keepdim=True)
        objectness = torch.where(thin, ABSENT, torch.full_like(boxes[..., :1], CERTAIN))
        found = candidates(boxes, objectness, rows.masked_fill(thin, ABSENT))
        with in_mode(False, (net.rpn,)):
            most = net.rpn.post_nms_top_n()
        parts = torch.split(found, [len(r) for r in regions])
        return torch.stack([_filled(p, most) for p in parts]).flatten(1, 2)

    def loss(self, z: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
        """torchvision's own training losses, of the proposals and of what becomes of them.

        z (B, C, H, W); boxes: (M, 4) of each picture in pixels; labels: (M,) of each picture, int64 from 0.

        torchvision draws which anchors and regions count.  In training the draws come from torch's global generator, so
        that they differ from step to step; in eval mode the same ones are drawn at every call.
        """
        check_truth(z, boxes, labels, self.classes)
        net, images, truth = self.net, padded(z, 32), as_targets(boxes, labels, z)
        drawn = nullcontext() if self.training else rng.seeded(0, z, "faster-rcnn")
        with drawn, in_mode(True, (net.rpn, net.roi_heads)):
            features = net.backbone(images.tensors)
            regions, of_proposals = net.rpn(images, features, truth)
            of_regions = net.roi_heads(features, regions, images.image_sizes, truth)[1]
        return {**of_proposals, **of_regions}

    @contextmanager
    def proposals_of(self, z: Tensor) -> Iterator[None]:
        """Inside, pictures get the proposals of z (B, C, H, W), each its own, or of the one picture that z is."""
        was = self._kept
        with torch.no_grad():
            images = padded(z, 32)
            self._kept = self._propose(images, self.net.backbone(images.tensors))
        try:
            yield
        finally:
            self._kept = was

    def _regions(self, images: Any, features: Any) -> list[Tensor]:
        """The regions (n, 4) of each picture in pixels: those that are kept, or its own."""
        if self._kept is None:
            return self._propose(images, features)
        if len(self._kept) not in (1, len(images.tensors)):
            raise Refused(
                f"{len(images.tensors)} pictures cannot share the proposals of {len(self._kept)}: give as many, or the "
                "proposals of one"
            )
        return self._kept if len(self._kept) > 1 else self._kept * len(images.tensors)

    def _propose(self, images: Any, features: Any) -> list[Tensor]:
        with in_mode(False, (self.net.rpn,)):
            regions: list[Tensor] = self.net.rpn(images, features)[0]
        return regions


def _filled(rows: Tensor, count: int) -> Tensor:
    """Rows (n, K, 5 + K) of one picture with rows of no meaning behind them, up to a number."""
    boxes = F.pad(rows[..., :4], (0, 0, 0, 0, 0, count - len(rows)))
    return torch.cat([boxes, F.pad(rows[..., 4:], (0, 0, 0, 0, 0, count - len(rows)), value=ABSENT)], 2)
