"""Chen, Papandreou, Schroff & Adam 2017, arXiv:1706.05587, section 3; the network is torchvision's."""

from __future__ import annotations

from typing import Literal

from torch import nn

from clearsight.core.catalogue import method
from clearsight.core.light_imports import without_compiler
from clearsight.segmenters.common.from_torchvision import BeforeUpsampling
from clearsight.segmenters.common.shapes import check_channels, check_shape


@method(paper="arXiv:1706.05587")
def deeplabv3(
    classes: int = 21,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    backbone: Literal["mobilenet-v3-large", "resnet50"] = "mobilenet-v3-large",
) -> nn.Module:
    """Dilated convolutions keep maps fine; several rates of dilation and a global average are read side by side.

    (B, *shape) -> logits (B, classes, h, w), where h and w are the sides of the picture divided by 16 (mobilenet) or 8
    (resnet50) and rounded up.

    This is torchvision's network without its last interpolation.  Its weights load; the auxiliary head is left out.
    The global average has one value for each map, so training takes batches of two pictures or more.

    Args:
        backbone: network below the head: "mobilenet-v3-large" (11 million parameters) or "resnet50" (40 million).

    Refused: pictures of less than 32 × 32 pixels or of other than three channels, and fewer than one class.

    >>> net = deeplabv3(3, (3, 64, 96)).eval()
    >>> net(torch.rand(1, 3, 64, 96)).shape
    torch.Size([1, 3, 4, 6])
    """
    check_shape("deeplabv3", classes, shape, 32)
    check_channels("deeplabv3", shape)
    with without_compiler():
        from torchvision.models import segmentation
    build = {
        "mobilenet-v3-large": segmentation.deeplabv3_mobilenet_v3_large, "resnet50": segmentation.deeplabv3_resnet50,
    }[backbone]  # fmt: skip
    net = build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)
    return BeforeUpsampling(net, "out")
