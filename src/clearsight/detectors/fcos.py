"""Tian, Shen, Chen & He 2019, arXiv:1904.01355: every place of a feature map says which object it lies in."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.backbones.features import STRIDES, make_backbone
from clearsight.core.catalogue import method
from clearsight.detectors.common.candidates import candidates, clip
from clearsight.detectors.common.frozen_norm import freeze_norm
from clearsight.detectors.common.losses import centerness, focal, giou
from clearsight.detectors.common.points import assign, distances, points
from clearsight.detectors.common.requests import check_option, check_shape, check_truth
from clearsight.errors import Refused

Below = Literal["lite0", "tiny"]
_LEVELS = STRIDES[:2]  # of the places that find objects
_REACH = ((0.0, 64.0), (64.0, math.inf))  # how far the sides of an object are from a place of each level, in pixels


@method(paper="arXiv:1904.01355", order=1)
def fcos(
    classes: int = 3,
    shape: tuple[int, ...] = (3, 320, 320),
    *,
    backbone: Below = "lite0",
    width: int = 64,
    convs: int = 2,
    freeze: bool = True,
) -> nn.Module:
    """Every place at strides 8 and 16 gives a box by the distances to its four sides: no anchors.

    (B, *shape) -> candidates (B, N, 5 + classes), boxes in pixels; N places row by row, stride 8 before stride 16.

    Objectness is the paper's centerness, so the score of a class is its equation for ranking.  Maps of strides 8, 16
    and 32 are added from coarse to fine; objects whose farthest side is beyond 64 pixels are found at stride 16.

    Args:
        backbone: what makes the features: "lite0" is EfficientNet-Lite0, "tiny" a few convolutions for tests and toys.
        width: channels of the pyramid and of the head, a multiple of 16.
        convs: 3 × 3 convolutions, each with GroupNorm, before the outputs, at least 0.
        freeze: the backbone's BatchNorm keeps its statistics in training, as batches of 8 pictures ask for.

    Refused: pictures below 32 × 32 pixels, fewer than one class, and options outside their ranges.

    Source: arXiv:1904.01355, sections 3.1 to 3.3; centre sampling as in arXiv:2006.09214.

    >>> net = fcos(2, (3, 64, 64), backbone="tiny")
    >>> net(torch.rand(1, 3, 64, 64)).shape  # 8 x 8 and 4 x 4 places
    torch.Size([1, 80, 7])
    """
    check_shape("fcos", classes, shape, 32)
    check_option("fcos", "convs", convs, 0)
    check_option("fcos", "width", width, 16)
    if width % 16:
        raise Refused(f"fcos(width={width}): give a multiple of 16, as GroupNorm has 16 groups")
    return Fcos(backbone, shape[0], classes, width, convs, freeze)


class Fcos(nn.Module):
    """The network that ``fcos`` describes."""

    def __init__(self, name: Below, channels: int, classes: int, width: int, convs: int, freeze: bool) -> None:
        super().__init__()
        self.classes, self.freeze = classes, freeze
        self.backbone, maps = make_backbone("fcos", name, channels)
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in maps)
        tower = [
            part
            for _ in range(convs)
            for part in (nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(16, width), nn.ReLU())
        ]
        self.tower = nn.Sequential(*tower)
        self.outputs = nn.Conv2d(width, 5 + classes, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(_LEVELS)))  # one for each level, of the logarithms of distances
        nn.init.normal_(self.outputs.weight, std=0.01)
        # each class begins at 1 %, arXiv:1708.02002
        self.outputs.bias = nn.Parameter(torch.tensor([0.0] * 5 + [-math.log(99)] * classes))

    def train(self, mode: bool = True) -> Fcos:
        super().train(mode)
        if self.freeze:
            freeze_norm(self.backbone)
        return self

    def forward(self, z: Tensor) -> Tensor:
        raw, boxes = self._predict(z)[:2]
        return candidates(clip(boxes, z.shape[2], z.shape[3]), raw[..., 4:5], raw[..., 5:])

    def loss(self, z: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
        """Focal loss of the classes, GIoU loss of the boxes, cross-entropy of the centerness; per place with an object.

        z (B, C, H, W); boxes: (M, 4) of each picture in pixels; labels: (M,) of each picture, int64 from 0.
        """
        check_truth(z, boxes, labels, self.classes)
        raw, predicted, places, level = self._predict(z)
        stride, reach = _per_place(level, z)
        learnt = torch.stack([assign(places, stride, reach, b.to(z)) for b in boxes])  # (B, N)
        found = learnt >= 0
        rows = [(b.to(z)[n[n >= 0]], c.to(z.device)[n[n >= 0]]) for b, c, n in zip(boxes, labels, learnt, strict=True)]
        truth, label = torch.cat([b for b, _ in rows]), torch.cat([c for _, c in rows])
        count = max(1, len(truth))
        wanted = torch.zeros_like(raw[..., 5:])
        wanted[(*found.nonzero(as_tuple=True), label)] = 1
        central = centerness(distances(places.expand(len(z), -1, -1)[found], truth))
        return {
            "classes": focal(raw[..., 5:], wanted) / count,
            "boxes": (giou(predicted[found], truth) * central).sum() / central.sum().clamp(min=1),
            "centerness": F.binary_cross_entropy_with_logits(raw[..., 4][found], central, reduction="sum") / count,
        }

    def _predict(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the head gives (B, N, 5 + classes), boxes (B, N, 4), places (N, 2) and their levels (N,)."""
        maps = [lateral(m) for lateral, m in zip(self.lateral, self.backbone(z), strict=True)]
        middle = maps[1] + F.interpolate(maps[2], size=maps[1].shape[2:])
        fine = maps[0] + F.interpolate(middle, size=maps[0].shape[2:])
        outputs = [self.outputs(self.tower(m)) for m in (fine, middle)]
        raw = torch.cat([o.flatten(2) for o in outputs], 2).transpose(1, 2)
        places = torch.cat([points(o.shape[2], o.shape[3], s, raw) for o, s in zip(outputs, _LEVELS, strict=True)])
        level = torch.cat([torch.full((o[0, 0].numel(),), i, device=z.device) for i, o in enumerate(outputs)])
        stride = _per_place(level, raw)[0]
        # exp keeps every side on its own side of the place: boxes cannot invert
        sides = (raw[..., :4] * self.scales[level, None]).clamp(max=8).exp() * stride[:, None]
        boxes = torch.cat([places - sides[..., :2], places + sides[..., 2:]], 2)
        return raw, boxes, places, level


def _per_place(level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The stride (N,) and the reach (N, 2) of the level of each place."""
    return torch.tensor(_LEVELS).to(like)[level], torch.tensor(_REACH).to(like)[level]
