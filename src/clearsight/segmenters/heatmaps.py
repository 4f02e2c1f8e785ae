"""Xiao, Wu & Wei 2018, arXiv:1804.06208, section 2."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from clearsight.backbones.features import BackboneName, make_backbone
from clearsight.core.catalogue import method
from clearsight.errors import Refused
from clearsight.segmenters.common.shapes import check_range, check_shape


@method(paper="arXiv:1804.06208", claims="landmarks")
def heatmaps(
    classes: int = 5,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    backbone: BackboneName = "lite0",
    width: int = 64,
) -> nn.Module:
    """One heatmap for each landmark, such as the tip of a nose: how likely it lies at each place.

    (B, *shape) -> heat (B, classes, h, w), where classes is the number of landmarks, and h and w are the sides of the
    picture divided by 4.

    Three transposed convolutions double the coarsest maps of the backbone, and a last layer reads the heat from them.
    The heat is trained to be a Gaussian around each landmark, by the loss in segmenters/common/landmarks.py, which also
    finds the landmarks in it.  It is a segmenter by its form alone: each landmark has a place among the pixels, but the
    pixels have no landmark, so no class wins at a pixel.

    Args:
        backbone: network below the heat: "lite0" EfficientNet-Lite0, "vgg16" VGG-16, "tiny" six convolutions.
        width: number of maps of each transposed convolution; the paper has 256.

    Refused: pictures whose sides are no multiples of 32 pixels, for then a place of the heat is no fixed place of the
    picture; vgg16 of other than three channels; and fewer than one landmark.

    >>> net = heatmaps(2, (3, 64, 96), backbone="tiny", width=8)
    >>> net(torch.rand(1, 3, 64, 96)).shape
    torch.Size([1, 2, 16, 24])
    """
    check_range("heatmaps", 1, 4096, width=width)
    check_shape("heatmaps", classes, shape, 32)
    if shape[1] % 32 or shape[2] % 32:
        raise Refused(
            f"heatmaps takes sides that are multiples of 32, not {shape[1]} x {shape[2]}: resize the pictures"
        )
    below, maps = make_backbone("heatmaps", backbone, shape[0])
    return Heatmaps(below, maps[2], width, classes)


class Heatmaps(nn.Module):
    """The coarsest maps of the backbone, three times doubled, and one layer that reads the heat."""

    def __init__(self, backbone: nn.Module, maps: int, width: int, landmarks: int) -> None:
        super().__init__()
        self.backbone = backbone
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, before in enumerate((maps, width, width), 1):
            layers[f"up{i}"] = nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=False)
            layers[f"norm{i}"] = nn.BatchNorm2d(width)
            layers[f"relu{i}"] = nn.ReLU()
        self.up = nn.Sequential(layers)
        self.heat = nn.Conv2d(width, landmarks, 1)

    def forward(self, z: Tensor) -> Tensor:
        heat: Tensor = self.heat(self.up(self.backbone(z)[2]))
        return heat
