"""A detector and a segmenter of convolutions, with random weights, small enough for every method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.core.preprocess import Preprocess
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter

SIZE = (32, 32)
COLOURS = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def _block(first: int, second: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(first, second, 3, stride, 1), nn.BatchNorm2d(second), nn.ReLU())


class SmallPyramid(nn.Module):
    """FCOS in small: a backbone of strides 4 and 8, a pyramid of two levels, and a head that both share.

    After Tian et al. 2019, arXiv:1904.01355: every cell is a candidate; the distances to the four sides are positive.
    """

    strides = (4, 8)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.fine, self.coarse = _block(3, 8), _block(8, 12), _block(12, 16)
        self.lateral_fine, self.lateral_coarse = nn.Conv2d(12, 8, 1), nn.Conv2d(16, 8, 1)
        self.level_fine, self.level_coarse = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.tower = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.sides, self.objectness = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 1, 1)
        self.classes = nn.Conv2d(8, classes, 1)

    def forward(self, z: Tensor) -> Tensor:
        fine = self.fine(self.stem(z))
        top = self.lateral_coarse(self.coarse(fine))
        below = self.lateral_fine(fine) + nn.functional.interpolate(top, fine.shape[2:], mode="nearest")
        both = self.level_fine(below), self.level_coarse(top)
        levels = [self._candidates(level, stride) for level, stride in zip(both, self.strides, strict=True)]
        return torch.cat(levels, 1)

    def _candidates(self, level: Tensor, stride: int) -> Tensor:
        """(B, K, h, w) -> (B, h w, 5 + C)."""
        tower = self.tower(level)
        sides = stride * nn.functional.softplus(self.sides(tower))
        rows, columns = (stride * (torch.arange(n, device=level.device) + 0.5) for n in level.shape[2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        left, top, right, bottom = sides.unbind(1)
        boxes = torch.stack([x - left, y - top, x + right, y + bottom], 1)
        return torch.cat([boxes, self.objectness(tower), self.classes(tower)], 1).flatten(2).mT


class SmallSkips(nn.Module):
    """FCN in small: scores at strides 8 and 4, enlarged and added; logits (B, K, H / 4, W / 4).

    After Long, Shelhamer & Darrell 2015, arXiv:1411.4038.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.fine, self.coarse = _block(3, 8), _block(8, 12), _block(12, 16)
        self.score_coarse, self.score_fine = nn.Conv2d(16, classes, 1), nn.Conv2d(12, classes, 1)

    def forward(self, z: Tensor) -> Tensor:
        fine = self.fine(self.stem(z))
        large = nn.functional.interpolate(self.score_coarse(self.coarse(fine)), fine.shape[2:], mode="bilinear")
        scores: Tensor = self.score_fine(fine) + large
        return scores


def small_pyramid(seed: int = 0) -> Detector:
    """An FCOS of two classes for pictures (3, 32, 32), with random weights: 80 candidates."""
    return Detector(_seeded(SmallPyramid, 2, seed), Preprocess(SIZE, *COLOURS), ("round", "square"))


def small_skips(seed: int = 0) -> Segmenter:
    """An FCN of three classes for pictures (3, 32, 32), with random weights."""
    return Segmenter(_seeded(SmallSkips, 3, seed), Preprocess(SIZE, *COLOURS), ("background", "round", "square"))


def _seeded(kind: type[nn.Module], classes: int, seed: int) -> nn.Module:
    """Weights of the seed; the statistics of BatchNorm are those of noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = kind(classes).train()
        with torch.no_grad():
            for _ in range(20):
                net(2 * torch.randn(8, 3, *SIZE))
        return net.eval()
