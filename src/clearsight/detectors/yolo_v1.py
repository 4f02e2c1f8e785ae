"""Redmon, Divvala, Girshick & Farhadi 2016, arXiv:1506.02640: one look, a grid, two boxes for each cell."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from clearsight.backbones.features import make_backbone
from clearsight.core.catalogue import method
from clearsight.detectors.common.candidates import candidates, clip
from clearsight.detectors.common.frozen_norm import freeze_norm
from clearsight.detectors.common.requests import check_option, check_shape, check_truth
from clearsight.errors import Refused

_PLACE, _EMPTY = 5.0, 0.5  # the paper's lambda of coordinates, and of cells without an object
_STAGES = (  # figure 3: kernel and maps of each convolution, pooling between the first stages
    ((7, 64),), ((3, 192),), ((1, 128), (3, 256), (1, 256), (3, 512)),
    (*((1, 256), (3, 512)) * 4, (1, 512), (3, 1024)), (*((1, 512), (3, 1024)) * 2, (3, 1024), (3, 1024)),
    ((3, 1024), (3, 1024)),
)  # fmt: skip


@method(paper="arXiv:1506.02640", order=2)
def yolo_v1(
    classes: int = 20,
    shape: tuple[int, ...] = (3, 448, 448),
    *,
    backbone: Literal["paper", "lite0", "tiny"] = "paper",
    grid: int = 7,
    boxes: int = 2,
    dense: int = 4096,
    dropout: float = 0.5,
    freeze: bool = True,
) -> nn.Module:
    """A grid of cells, each of which gives a few boxes and one guess of the class of its object.

    (B, *shape) -> candidates (B, grid² · boxes, 5 + classes), boxes in pixels; cells row by row, the boxes of a cell
    one after the other.  The classes of a cell are those of each of its boxes.

    Objectness is the paper's confidence.  Unlike the paper's, confidence and classes pass a sigmoid before the squared
    error, so that they are probabilities; the places and the roots of the sides are linear, as in the paper.

    Args:
        backbone: what makes the features: "paper" has the 24 convolutions of its figure 3, "lite0" is
            EfficientNet-Lite0, "tiny" a few convolutions for tests and toys.
        grid: cells along each side, at least 1.
        boxes: boxes that each cell gives, at least 1.
        dense: units of the hidden dense layer, at least 1.
        dropout: share of those units left out in training, at least 0 and below 1.
        freeze: the backbone's BatchNorm keeps its statistics in training; the paper's has none.

    Refused: pictures below 64 × 64 pixels, fewer than one class, options outside their ranges; and by the network,
    pictures of another shape.

    Source: arXiv:1506.02640, section 2, figure 3 and equation 3.

    >>> with torch.device("meta"):
    ...     net = yolo_v1()
    ...     net.read(torch.rand(1, 3, 448, 448)).shape, net(torch.rand(1, 3, 448, 448)).shape
    (torch.Size([1, 7, 7, 30]), torch.Size([1, 98, 25]))
    """
    check_shape("yolo-v1", classes, shape, 64)
    for option, value in (("grid", grid), ("boxes", boxes), ("dense", dense)):
        check_option("yolo-v1", option, value, 1)
    check_option("yolo-v1", "dropout", dropout, 0, 1)
    if backbone == "paper":
        features, maps = _paper(shape[0]), 1024
    else:
        net, channels = make_backbone("yolo-v1", backbone, shape[0])
        features, maps = nn.Sequential(net, _Last()), channels[-1]
    side = 64 if backbone == "paper" else 32
    cells = -(-shape[1] // side) * -(-shape[2] // side)
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(maps * cells, dense), nn.LeakyReLU(0.1), nn.Dropout(dropout),
        nn.Linear(dense, grid * grid * (5 * boxes + classes)),
    )  # fmt: skip
    return YoloV1(features, head, classes, shape, grid, boxes, freeze)


class _Last(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[-1]


def _paper(channels: int) -> nn.Sequential:
    """The convolutions of figure 3: pooling after the first four stages, and two strides of 2."""
    layers: list[nn.Module] = []
    for i, stage in enumerate(_STAGES):
        for j, (kernel, maps) in enumerate(stage):
            stride = 2 if i == 0 or (i == 4 and j == len(stage) - 1) else 1
            layers += [nn.Conv2d(channels, maps, kernel, stride, kernel // 2), nn.LeakyReLU(0.1)]
            channels = maps
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if i < 4 else []
    return nn.Sequential(*layers)


class YoloV1(nn.Module):
    """The network that ``yolo_v1`` describes."""

    def __init__(
        self,
        features: nn.Module,
        head: nn.Module,
        classes: int,
        shape: tuple[int, ...],
        grid: int,
        boxes: int,
        freeze: bool,
    ) -> None:
        super().__init__()
        self.features, self.head, self.shape = features, head, tuple(shape)
        self.classes, self.grid, self.boxes, self.freeze = classes, grid, boxes, freeze

    def train(self, mode: bool = True) -> YoloV1:
        super().train(mode)
        if self.freeze:
            freeze_norm(self.features)
        return self

    def read(self, z: Tensor) -> Tensor:
        """(B, C, H, W) -> the paper's output (B, grid, grid, 5 · boxes + classes).

        Of each box x and y in the cell, from 0 to 1, the roots of its width and height as shares of the picture's, and
        the logit of its confidence; then the logits of the classes.
        """
        if z.shape[1:] != self.shape:
            raise Refused(
                f"this yolo-v1 was built for pictures of shape {self.shape}, not {tuple(z.shape[1:])}: its dense "
                "layers read a fixed number of places; give pictures of that size, or build another"
            )
        raw: Tensor = self.head(self.features(z))
        return raw.view(z.shape[0], self.grid, self.grid, 5 * self.boxes + self.classes)

    def forward(self, z: Tensor) -> Tensor:
        raw = self.read(z)
        own, classes = self._split(raw)
        corners = _corners(own, self.grid) * raw.new_tensor([z.shape[3], z.shape[2]] * 2)
        shared = classes[..., None, :].expand(-1, -1, -1, self.boxes, -1)
        boxes = clip(corners, z.shape[2], z.shape[3]).flatten(1, 3)
        return candidates(boxes, own[..., 4:].flatten(1, 3), shared.flatten(1, 3))

    def loss(self, z: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
        """Squared errors of places, roots of sides, confidence and classes, summed over a picture; mean of pictures.

        z (B, C, H, W); boxes: (M, 4) of each picture in pixels; labels: (M,) of each picture, int64 from 0.

        An object belongs to the cell of its centre, and there to the box that overlaps it most, which is to be as
        confident as it overlaps.  Of several objects in one cell the largest is learnt: a cell has one class.
        """
        check_truth(z, boxes, labels, self.classes)
        own, classes = self._split(self.read(z))
        shares = [b.to(z) / z.new_tensor([z.shape[3], z.shape[2]] * 2) for b in boxes]
        picks = [cells_of(b, self.grid) for b in shares]  # per picture: cells, and the objects they learn
        picture = torch.cat([torch.full_like(cell, i) for i, (cell, _) in enumerate(picks)])
        cell = torch.cat([cell for cell, _ in picks])
        truth = torch.cat([b[n] for b, (_, n) in zip(shares, picks, strict=True)])
        label = torch.cat([c.to(z.device)[n] for c, (_, n) in zip(labels, picks, strict=True)])
        at = (picture, cell // self.grid, cell % self.grid)
        overlap = _iou(_corners(own, self.grid).detach()[at], truth[:, None])  # (objects, boxes)
        best, which = overlap.max(1) if len(truth) else (overlap.new_zeros(0), cell)
        mine = own[(*at, which)]  # the responsible boxes (objects, 5)
        centre, size = (truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:] - truth[:, :2]
        inside = centre * self.grid - torch.stack([at[2], at[1]], 1)
        confidence = own[..., 4].sigmoid()
        idle = torch.ones_like(confidence, dtype=torch.bool)
        idle[(*at, which)] = False
        one_hot = torch.zeros_like(classes[at])
        one_hot[torch.arange(len(label), device=z.device), label] = 1
        sums = {
            "places": _PLACE * (mine[:, :2] - inside).square().sum(),
            "sizes": _PLACE * (mine[:, 2:4] - size.sqrt()).square().sum(),
            "objects": (mine[:, 4].sigmoid() - best).square().sum(),
            "background": _EMPTY * confidence[idle].square().sum(),
            "classes": (classes[at].sigmoid() - one_hot).square().sum(),
        }
        return {name: value / len(z) for name, value in sums.items()}

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The boxes (B, S, S, boxes, 5) and the classes (B, S, S, classes) of what ``read`` gives."""
        own = raw[..., : 5 * self.boxes].reshape(*raw.shape[:3], self.boxes, 5)
        return own, raw[..., 5 * self.boxes :]


def cells_of(boxes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """The cells with an object, counted row by row, and which object each learns, both (K,) int64.

    boxes (M, 4): in shares of the picture.

    >>> cells_of(torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.4, 0.4], [0.6, 0.0, 1.0, 0.4]]), 2)
    (tensor([0, 1]), tensor([1, 2]))
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    column, row = (centre * grid).long().clamp(0, grid - 1).unbind(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    learnt: dict[int, int] = {}
    for n in area.argsort().tolist():  # the largest is written last
        learnt[int(row[n]) * grid + int(column[n])] = n
    cells = sorted(learnt)
    return boxes.new_tensor(cells).long(), boxes.new_tensor([learnt[c] for c in cells]).long()


def _corners(own: Tensor, grid: int) -> Tensor:
    """Boxes (B, S, S, boxes, 5) as the network gives them -> their corners (..., 4) in shares of the picture."""
    count = torch.arange(grid, device=own.device, dtype=own.dtype)
    x = (own[..., 0] + count[:, None]) / grid
    y = (own[..., 1] + count[:, None, None]) / grid
    half_w, half_h = own[..., 2].square() / 2, own[..., 3].square() / 2
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) and (..., 4), each with each at its place; 0 where both have no area."""
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area_a, area_b = ((m[..., 2:] - m[..., :2]).prod(-1) for m in (a, b))
    return both / (area_a + area_b - both).clamp(min=1e-12)
