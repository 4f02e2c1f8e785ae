"""Long, Shelhamer & Darrell 2015, arXiv:1411.4038, figure 3 and section 4."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from clearsight.backbones.features import STRIDES, BackboneName, make_backbone
from clearsight.core.catalogue import method
from clearsight.segmenters.common.shapes import check_shape, crop
from clearsight.segmenters.common.upsampling import upsampling


@method(paper="arXiv:1411.4038")
def fcn(
    classes: int = 21,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    stride: Literal[8, 16, 32] = 8,
    backbone: BackboneName = "lite0",
    last: Literal["fixed", "learned"] = "fixed",
) -> nn.Module:
    """A classifier whose last layer scores every place; finer layers add their scores to those of coarser ones.

    (B, *shape) -> logits (B, classes, h, w), where h and w are the sides of the picture divided by the stride and
    rounded up; with last=learned (B, classes, H, W).

    Scores of stride 32 are doubled by a transposed convolution, which begins as bilinear interpolation and learns, and
    those of stride 16 are added; the same again gives stride 8.  The added scores begin at zero, so FCN-16s and FCN-8s
    begin as FCN-32s (the paper's "at once").  The scores of stride 32 begin small and random, so that gradients reach
    the backbone from the first step.  The paper's backbone is VGG-16, with zeros around the picture of which ours has
    none.

    Args:
        stride: pixels of the picture for each place of the logits: 32 is FCN-32s, 16 FCN-16s, 8 FCN-8s.
        backbone: network below the scores: "lite0" EfficientNet-Lite0 (3 million parameters), "vgg16" as the paper (134
            million), "tiny" six convolutions for tests and for shapes of one colour.
        last: what brings logits to the picture's size: "fixed" leaves it to whoever reads them, by bilinear
            interpolation, which the paper's last layer is; "learned" ends in a transposed convolution for each class,
            which begins as that.

    Refused: pictures of less than 32 × 32 pixels, vgg16 of other than three channels, and fewer than one class.

    >>> net = fcn(3, (3, 64, 80), stride=16, backbone="tiny")
    >>> net(torch.rand(1, 3, 64, 80)).shape
    torch.Size([1, 3, 4, 5])
    """
    check_shape("fcn", classes, shape, 32)
    below, maps = make_backbone("fcn", backbone, shape[0])
    return FCN(below, maps, classes, stride, learned=last == "learned")


class FCN(nn.Module):
    """backbone(z) gives maps at strides 8, 16 and 32; head(maps) gives the logits."""

    def __init__(
        self, backbone: nn.Module, maps: tuple[int, int, int], classes: int, stride: int, *, learned: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Head(maps, classes, stride)
        self.enlarge = upsampling(classes, stride, mixed=False) if learned else None

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(z))
        return logits if self.enlarge is None else crop(self.enlarge(logits), z)


class Head(nn.Module):
    """Scores of the coarsest maps, doubled and added to those of the next finer ones until the stride is reached."""

    def __init__(self, maps: tuple[int, int, int], classes: int, stride: int) -> None:
        super().__init__()
        self.score32 = nn.Conv2d(maps[2], classes, 1)
        nn.init.normal_(self.score32.weight, std=0.01)
        nn.init.zeros_(self.score32.bias)  # type: ignore[arg-type]
        finer = [(s, m) for s, m in zip(STRIDES, maps, strict=True) if stride <= s < 32]
        self.skips = nn.ModuleDict(
            OrderedDict((f"score{s}", _zero(nn.Conv2d(m, classes, 1))) for s, m in reversed(finer))
        )
        self.doubled = nn.ModuleDict(
            OrderedDict((f"to{s}", upsampling(classes, 2, mixed=True)) for s, _ in reversed(finer))
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        scores: Tensor = self.score32(maps[2])
        for skip, up, fine in zip(self.skips.values(), self.doubled.values(), maps[1::-1], strict=False):
            own = skip(fine)
            scores = crop(up(scores), own) + own
        return scores


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer
