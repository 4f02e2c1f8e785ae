"""Lin, Goyal, Girshick, He & Dollár 2017, arXiv:1708.02002: one stage, made as good as two by the focal loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.detectors.common.candidates import CERTAIN
from clearsight.detectors.common.requests import check_shape
from clearsight.detectors.common.torchvision_nets import OneStage, Outputs, detection


@method(paper="arXiv:1708.02002", order=4)
def retinanet(
    classes: int = 90,
    shape: tuple[int, ...] = (3, 800, 800),
    *,
    freeze: bool = True,
) -> nn.Module:
    """The RetinaNet of torchvision on a ResNet-50: nine anchors at each place of a pyramid of five levels.

    (B, *shape) -> candidates (B, N, 5 + classes), boxes in pixels; N anchors, fine levels before coarse ones.

    The network inside, ``net``, is ``retinanet_resnet50_fpn`` with random weights and one class more: torchvision
    counts background, which is left out here.  There is no objectness: its logit is 50.

    Args:
        freeze: BatchNorm keeps its statistics in training, as batches of few pictures ask for.

    Refused: pictures below 32 × 32 pixels or of other than 3 channels, and fewer than one class.

    Source: arXiv:1708.02002, section 4.

    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in retinanet(90).parameters())  # torchvision says 34014999, without BatchNorm
    34068119
    """
    check_shape("retinanet", classes, shape, 32, colours=True)
    net = detection().retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes + 1)
    return OneStage(net, classes, 32, _boxes, _logits, _losses, freeze=freeze)


def _boxes(net: Any, outputs: Outputs, anchors: Tensor) -> Tensor:
    change = outputs["bbox_regression"]
    boxes: Tensor = net.box_coder.decode_single(change.flatten(0, 1), anchors.repeat(change.shape[0], 1))
    return boxes.view_as(change)


def _logits(outputs: Outputs) -> tuple[Tensor, Tensor]:
    logits = outputs["cls_logits"]
    return torch.full_like(logits[..., :1], CERTAIN), logits[..., 1:]


def _losses(net: Any, truth: list[Outputs], outputs: Outputs, anchors: list[Tensor], places: list[int]) -> Outputs:
    losses: Outputs = net.compute_loss(truth, outputs, anchors)
    return losses
