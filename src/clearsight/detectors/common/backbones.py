"""Backbones: pictures to maps of features at strides 8, 16 and 32, and how many channels each has."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from clearsight.core.light_imports import without_compiler

Backbone = Literal["lite0", "tiny"]
STRIDES = (8, 16, 32)


class _Tiny(nn.Module):
    """Convolutions of few channels, each halving the maps, with GroupNorm: for tests and toys."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_halve(channels, 16), _halve(16, 24), _halve(24, 32))
        self.stage16 = _halve(32, 48)
        self.stage32 = _halve(48, 64)

    def forward(self, z: Tensor) -> list[Tensor]:
        fine = self.stem(z)
        middle = self.stage16(fine)
        return [fine, middle, self.stage32(middle)]


def _halve(channels: int, maps: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, maps, 3, 2, 1, bias=False), nn.GroupNorm(4, maps), nn.ReLU())


def backbone(name: Backbone, channels: int) -> tuple[nn.Module, tuple[int, ...]]:
    """The network with random weights, and the channels of its maps at strides 8, 16 and 32.

    name: "lite0" is timm's EfficientNet-Lite0 without its classifier, whose parameters bear the names that they have in
        ``timm:tf_efficientnet_lite0``; "tiny" has a few convolutions.
    """
    if name == "tiny":
        return _Tiny(channels), (32, 48, 64)
    with without_compiler():
        import timm

    net: Any = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(2, 3, 4), in_chans=channels
    )
    return net, tuple(net.feature_info.channels())
