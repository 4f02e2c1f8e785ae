"""Five ways from a picture to boxes with classes, each run as its paper runs it, on one backbone.

A window at every place; proposals that are cropped one by one (R-CNN, Girshick et al. 2014, arXiv:1311.2524); proposals
that are cut out of one map of features (Fast R-CNN, Girshick 2015, arXiv:1504.08083, with RoIAlign, He et al. 2017,
arXiv:1703.06870); proposals by a network (Faster R-CNN, Ren et al. 2015, arXiv:1506.01497); and one shot (FCOS, Tian et
al. 2019, arXiv:1904.01355).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.core.boxes import suppress
from clearsight.core.classifier import Classifier
from clearsight.core.light_imports import without_compiler

STRIDE = 32  # pixels of the picture in a cell of the last map
BINS = 7  # rows and columns of a pooled region, as many as the map of a crop of 224 pixels has
SIDE = 600  # pixels: the short side of the picture that passes once, as in Fast R-CNN
BATCH = 32  # crops that pass together: memory stays bounded
ANCHOR_SIDES, ANCHOR_SHAPES = (128, 256, 512), (0.5, 1.0, 2.0)  # of Faster R-CNN, in pixels of that picture


@dataclass
class Cost:
    """What went through the backbone: how many pictures, and how many pixels in all."""

    passes: int = 0
    pixels: int = 0


@contextmanager
def cost_of(net: nn.Module) -> Iterator[Cost]:
    """Count what goes through the first convolution of a network."""
    cost = Cost()

    def count(_module: nn.Module, args: tuple[Any, ...]) -> None:
        cost.passes += len(args[0])
        cost.pixels += len(args[0]) * args[0].shape[-2] * args[0].shape[-1]

    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    handle = first.register_forward_pre_hook(count)
    try:
        yield cost
    finally:
        handle.remove()


def windows(height: int, width: int, sides: tuple[int, ...], step: float = 0.5) -> Tensor:
    """All square windows of some sides that lie in a picture, a step of their side apart: (N, 4) in pixels.

    Two columns and one row of windows of 4 in a picture of 4 x 6:

    >>> windows(4, 6, (4,)).tolist()
    [[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0]]
    """
    found = []
    for side in sides:
        apart = max(1, round(side * step))
        y, x = torch.meshgrid(
            torch.arange(0, height - side + 1, apart), torch.arange(0, width - side + 1, apart), indexing="ij"
        )
        corner = torch.stack([x.flatten(), y.flatten()], 1)
        found.append(torch.cat([corner, corner + side], 1))
    return torch.cat(found).float()


def by_crops(model: Classifier, x: Tensor, boxes: Tensor) -> Tensor:
    """R-CNN: every box is cropped, warped to the model's size and passes by itself.

    x (1, 3, H, W) in [0, 1], boxes (N, 4) in its pixels -> probabilities (N, classes).
    """
    parts = [model.chances(model(crops(model, x, part))) for part in torch.split(boxes, BATCH)]
    return torch.cat(parts) if parts else x.new_zeros(0, len(model.labels))


def crops(model: Classifier, x: Tensor, boxes: Tensor) -> Tensor:
    """The pixels of boxes (N, 4) in x (1, 3, H, W), each warped to the model's size: (N, 3, *size)."""
    size, mode = model.preprocess.size, model.preprocess.interpolation
    cut = [x[:, :, y1:y2, x1:x2] for x1, y1, x2, y2 in boxes.round().long().tolist()]
    return torch.cat([F.interpolate(c, size=size, mode=mode, antialias=True) for c in cut]).clamp(0, 1)


def enlarged(x: Tensor) -> Tensor:
    """The picture (1, 3, H, W) with a short side of about 600 pixels, both sides multiples of 32.

    >>> tuple(enlarged(torch.rand(1, 3, 40, 60)).shape)
    (1, 3, 608, 896)
    """
    factor = SIDE / min(x.shape[2:])
    size = [STRIDE * round(side * factor / STRIDE) for side in x.shape[2:]]
    return F.interpolate(x, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def features(model: Classifier, x: Tensor) -> Tensor:
    """The last map of the enlarged picture x (1, 3, H, W): (1, channels, H / 32, W / 32)."""
    net: Any = model.net
    maps: Tensor = net.forward_features(model.normalised(x))
    return maps


def by_regions(model: Classifier, maps: Tensor, boxes: Tensor) -> Tensor:
    """Fast R-CNN: every box is cut out of the map as 7 x 7 values, and the classifier's own head reads them.

    maps (1, K, h, w), boxes (N, 4) in pixels of the enlarged picture -> probabilities (N, classes).
    """
    net: Any = model.net
    parts = [model.chances(net.forward_head(pooled(maps, part))) for part in torch.split(boxes, 8 * BATCH)]
    return torch.cat(parts) if parts else maps.new_zeros(0, len(model.labels))


def pooled(maps: Tensor, boxes: Tensor, bins: int = BINS, stride: int = STRIDE) -> Tensor:
    """RoIAlign: the mean of bilinear samples in each of bins x bins parts of a box: (N, K, bins, bins).

    The lower right quarter of a map of 4 x 4 that holds 0 to 15, in one bin: the mean of 10, 11, 14 and 15.

    >>> maps = torch.arange(16.0).view(1, 1, 4, 4)
    >>> pooled(maps, torch.tensor([[2.0, 2.0, 4.0, 4.0]]), bins=1, stride=1).item()
    12.5
    """
    with without_compiler():
        from torchvision.ops import roi_align

    found: Tensor = roi_align(maps, [boxes], bins, 1 / stride, sampling_ratio=2, aligned=True)
    return found


def proposer(channels: int, most: int, seed: int = 0) -> nn.Module:
    """Faster R-CNN's region proposal network for maps of so many channels, by torchvision; its weights are random."""
    with without_compiler():
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

    with rng.seeded(seed, torch.zeros(1), "region proposals"):
        head = RPNHead(channels, len(ANCHOR_SIDES) * len(ANCHOR_SHAPES))
    anchors = AnchorGenerator((ANCHOR_SIDES,), (ANCHOR_SHAPES,))
    before, after = {"training": 2 * most, "testing": 20 * most}, {"training": most, "testing": most}
    net: nn.Module = RegionProposalNetwork(anchors, head, 0.7, 0.3, 256, 0.5, before, after, nms_thresh=0.7)
    return net.eval()


def proposed(rpn: nn.Module, x: Tensor, maps: Tensor) -> Tensor:
    """The boxes (N, 4) that a region proposal network proposes, in pixels of the enlarged picture x."""
    with without_compiler():
        from torchvision.models.detection.image_list import ImageList

    sizes = [(int(x.shape[2]), int(x.shape[3]))]
    boxes: Tensor = rpn(ImageList(x, sizes), {"0": maps})[0][0]
    return boxes


@dataclass(frozen=True)
class Found:
    """A box with a class: its name, its probability, and where it is, in pixels of the picture."""

    label: str
    probability: float
    box: tuple[float, float, float, float]


def surest(
    model: Classifier, boxes: Tensor, probabilities: Tensor, floor: float, overlap: float, most: int
) -> list[Found]:
    """The top class of each box, where it is above the floor, after suppression of each class; the surest first."""
    chance, label = probabilities.max(1)
    above = (chance > floor).nonzero()[:, 0]
    kept = above[suppress(boxes[above], chance[above], overlap, label[above])][:most]
    return [Found(model.name(int(label[k])), float(chance[k]), tuple(boxes[k].tolist())) for k in kept.tolist()]
