"""Sandler et al. 2018, arXiv:1801.04381, section 6.2: SSD of Liu et al. 2015 (arXiv:1512.02325) for small devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.core.light_imports import without_compiler
from clearsight.detectors.common.candidates import CERTAIN, of_softmax
from clearsight.detectors.common.points import NOBODY
from clearsight.detectors.common.requests import check_shape
from clearsight.detectors.common.torchvision_nets import OneStage, Outputs, detection


@method(paper="arXiv:1801.04381", order=6)
def ssdlite(
    classes: int = 90,
    shape: tuple[int, ...] = (3, 320, 320),
    *,
    freeze: bool = True,
) -> nn.Module:
    """The SSDlite of torchvision on a MobileNetV3-Large: six anchors at each place of six maps.

    (B, *shape) -> candidates (B, N, 5 + classes), boxes in pixels; N anchors, fine maps before coarse ones.

    The network inside, ``net``, is ``ssdlite320_mobilenet_v3_large`` with random weights.  Its scores are a softmax
    over the classes and background; the logit of a class is that of its probability.  There is no objectness: its
    logit is 50.

    Args:
        freeze: BatchNorm keeps its statistics in training, as batches of few pictures ask for.

    Refused: pictures below 32 × 32 pixels or of other than 3 channels, and fewer than one class.

    Source: arXiv:1801.04381, section 6.2, and arXiv:1512.02325, section 2.

    >>> sum(p.numel() for p in ssdlite(90).parameters())  # as torchvision says of its own with 91
    3440060
    """
    check_shape("ssdlite", classes, shape, 32, colours=True)
    net = detection().ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes + 1)
    return OneStage(net, classes, 1, _boxes, _logits, _losses, freeze=freeze)


def _boxes(net: Any, outputs: Outputs, anchors: Tensor) -> Tensor:
    change = outputs["bbox_regression"]
    boxes: Tensor = net.box_coder.decode_single(change.flatten(0, 1), anchors.repeat(change.shape[0], 1))
    return boxes.view_as(change)


def _logits(outputs: Outputs) -> tuple[Tensor, Tensor]:
    logits = of_softmax(outputs["cls_logits"])[..., 1:]
    return torch.full_like(logits[..., :1], CERTAIN), logits


def _losses(net: Any, truth: list[Outputs], outputs: Outputs, anchors: list[Tensor], places: list[int]) -> Outputs:
    with without_compiler():
        from torchvision.ops import box_iou

    learnt = [
        net.proposal_matcher(box_iou(one["boxes"], own))
        if len(one["boxes"])
        else torch.full((len(own),), NOBODY, device=own.device)
        for one, own in zip(truth, anchors, strict=True)
    ]
    losses: Outputs = net.compute_loss(truth, outputs, anchors, learnt)
    return losses
