"""Howard et al. 2019, arXiv:1905.02244, section 6.4 and figure 10; the network is torchvision's."""

from __future__ import annotations

from torch import nn

from clearsight.core.catalogue import method
from clearsight.core.light_imports import without_compiler
from clearsight.segmenters.common.from_torchvision import BeforeUpsampling
from clearsight.segmenters.common.shapes import check_channels, check_shape


@method(paper="arXiv:1905.02244")
def lraspp(classes: int = 21, shape: tuple[int, ...] = (3, 224, 224)) -> nn.Module:
    """MobileNetV3 with a light head: coarse maps, weighted by what the whole picture shows, and fine ones.

    (B, *shape) -> logits (B, classes, h, w), where h and w are the sides of the picture divided by 8 and rounded up.

    This is torchvision's lraspp_mobilenet_v3_large without its last interpolation; its weights load.

    Refused: pictures of less than 32 × 32 pixels or of other than three channels, and fewer than one class.

    >>> net = lraspp(3, (3, 64, 96)).eval()
    >>> net(torch.rand(1, 3, 64, 96)).shape
    torch.Size([1, 3, 8, 12])
    """
    check_shape("lraspp", classes, shape, 32)
    check_channels("lraspp", shape)
    with without_compiler():
        from torchvision.models import segmentation
    net = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
    return BeforeUpsampling(net, None)
