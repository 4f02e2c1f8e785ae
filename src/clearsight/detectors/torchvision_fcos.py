"""Tian, Shen, Chen & He 2020, arXiv:2006.09214: the later FCOS, as torchvision has it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from clearsight.core.catalogue import method
from clearsight.detectors.common.candidates import of_root
from clearsight.detectors.common.requests import check_shape
from clearsight.detectors.common.torchvision_nets import OneStage, Outputs, detection


@method(paper="arXiv:2006.09214", order=5)
def torchvision_fcos(
    classes: int = 90,
    shape: tuple[int, ...] = (3, 800, 800),
    *,
    freeze: bool = True,
) -> nn.Module:
    """The FCOS of torchvision on a ResNet-50: a box at each place of a pyramid of five levels.

    (B, *shape) -> candidates (B, N, 5 + classes), boxes in pixels; N places, fine levels before coarse ones.

    The network inside, ``net``, is ``fcos_resnet50_fpn`` with random weights and one class more: torchvision counts
    background, which is left out here.  Its score is the root of class times centerness, so both logits here are those
    of roots.

    Args:
        freeze: BatchNorm keeps its statistics in training, as batches of few pictures ask for.

    Refused: pictures below 32 × 32 pixels or of other than 3 channels, and fewer than one class.

    Source: arXiv:2006.09214, section 2.

    >>> import torch
    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in torchvision_fcos(90).parameters())  # torchvision says 32269600, without BatchNorm
    32322720
    """
    check_shape("torchvision-fcos", classes, shape, 32, colours=True)
    net = detection().fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes + 1)
    return OneStage(net, classes, 32, _boxes, _logits, _losses, freeze=freeze)


def _boxes(net: Any, outputs: Outputs, anchors: Tensor) -> Tensor:
    change = outputs["bbox_regression"]
    boxes: Tensor = net.box_coder.decode(change, anchors.expand_as(change))
    return boxes


def _logits(outputs: Outputs) -> tuple[Tensor, Tensor]:
    return of_root(outputs["bbox_ctrness"]), of_root(outputs["cls_logits"][..., 1:])


def _losses(net: Any, truth: list[Outputs], outputs: Outputs, anchors: list[Tensor], places: list[int]) -> Outputs:
    losses: Outputs = net.compute_loss(truth, outputs, anchors, places)
    return losses
