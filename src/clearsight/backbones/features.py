"""Backbones: the maps of a classifier at strides 8, 16 and 32."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from clearsight.core.light_imports import without_compiler
from clearsight.errors import Refused

BackboneName = Literal["lite0", "vgg16", "tiny"]
STRIDES = (8, 16, 32)


def make_backbone(above: str, name: BackboneName, channels: int) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network (B, channels, H, W) -> maps at strides 8, 16 and 32, and how many there are at each.

    The sides of a map are H and W divided by its stride, rounded up.  Weights are random.

    Args:
        above: the network that stands on it, for the message.
        name: "lite0" is timm's EfficientNet-Lite0 without its classifier, whose parameters bear the names that they
            have in ``timm:tf_efficientnet_lite0``; "vgg16" VGG-16; "tiny" six convolutions, for tests and toys.
        channels: of the pictures.

    Refused: vgg16 of pictures of other than three channels.
    """
    if name == "lite0":
        with without_compiler():
            import timm
        net = timm.create_model(
            "tf_efficientnet_lite0", features_only=True, pretrained=False, out_indices=(2, 3, 4), in_chans=channels
        )
        return net, (40, 112, 320)
    if name == "vgg16":
        if channels != 3:
            raise Refused(f"{above}(backbone=vgg16) takes 3 channels, not {channels}: lite0 takes any number")
        return VGG16(), (256, 512, 4096)
    return Tiny(channels), (32, 48, 64)


class Tiny(nn.Module):
    """Five 3 × 3 convolutions at stride 2 and one at stride 1, each with GroupNorm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to8 = nn.Sequential(_conv(channels, 16, 2), _conv(16, 24, 2), _conv(24, 32, 2), _conv(32, 32, 1))
        self.to16 = _conv(32, 48, 2)
        self.to32 = _conv(48, 64, 2)

    def forward(self, z: Tensor) -> list[Tensor]:
        at8 = self.to8(z)
        at16 = self.to16(at8)
        return [at8, at16, self.to32(at16)]


class VGG16(nn.Module):
    """VGG-16 with its dense layers made convolutions; `features` has the names of torchvision's.

    The paper adds 100 pixels of zeros around the picture, so that the 7 × 7 convolution fits.  Here that convolution
    has 3 places of zeros around its input, and pooling rounds up, so that maps lie on the picture without a shift.
    """

    def __init__(self) -> None:
        super().__init__()
        with without_compiler():
            from torchvision.models import vgg16
        features = vgg16(weights=None).features
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        self.features = features
        self.dense = nn.Sequential(
            OrderedDict(
                fc6=nn.Conv2d(512, 4096, 7, padding=3), relu6=nn.ReLU(), drop6=nn.Dropout(0.5),
                fc7=nn.Conv2d(4096, 4096, 1), relu7=nn.ReLU(), drop7=nn.Dropout(0.5),
            )
        )  # fmt: skip

    def forward(self, z: Tensor) -> list[Tensor]:
        pooled = []
        for layer in self.features:
            z = layer(z)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(z)
        return [pooled[2], pooled[3], self.dense(pooled[4])]


def _conv(channels: int, maps: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, maps, 3, stride, 1, bias=False), norm=nn.GroupNorm(4, maps), relu=nn.ReLU()
        )
    )
