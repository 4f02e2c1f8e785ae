"""A detector and a segmenter of convolutions, with random weights, small enough for every method."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from clearsight.core.boxes import giou
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

    def __init__(self, classes: int, *, norm: bool = True) -> None:
        super().__init__()
        self.stem, self.fine, self.coarse = _block(3, 8), _block(8, 12), _block(12, 16)
        self.lateral_fine, self.lateral_coarse = nn.Conv2d(12, 8, 1), nn.Conv2d(16, 8, 1)
        self.level_fine, self.level_coarse = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.tower = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), *[nn.GroupNorm(2, 8)] * norm, nn.ReLU())
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


def shapes(number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (B, 3, 32, 32) of a disc (class 0) or a square in each half, their boxes (B, 2, 4) and classes (B, 2).

    Small ones have 6 pixels, large ones, of which there are less, 10.
    """
    g = torch.Generator().manual_seed(seed)
    x = 0.35 + 0.1 * torch.rand(number, 3, *SIZE, generator=g)
    side = torch.where(torch.rand(number, 2, generator=g) < 0.7, 6.0, 10.0)
    classes = (torch.rand(number, 2, generator=g) < 0.5).long()
    free = torch.stack([16 - side, 32 - side], -1) * torch.rand(number, 2, 2, generator=g)
    corner = free + torch.tensor([[0.0, 0.0], [16.0, 0.0]])
    boxes = torch.cat([corner, corner + side[..., None]], -1)
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    across = torch.stack([columns, rows]) - centre[..., None, None]
    square = across.abs().amax(2) < side[..., None, None] / 2
    disc = across.norm(dim=2) < side[..., None, None] / 2
    inside = torch.where(classes[..., None, None] == 1, square, disc).any(1)
    return torch.where(inside[:, None], 0.9, x), boxes, classes


@functools.cache
def taught_shapes() -> Detector:
    """`SmallPyramid` taught to find the discs and squares of `shapes`, about two seconds of training; small ones are
    found on the fine level, large ones on the coarse one.  It has no norm in its head, which would mix all places.
    """
    x, boxes, classes = shapes(256, 0)
    pixels = [s * (torch.arange(32 // s) + 0.5) for s in SmallPyramid.strides]
    cells = torch.cat([torch.stack(torch.meshgrid(p, p, indexing="xy"), -1).view(-1, 2) for p in pixels])
    stride = torch.cat([torch.full((len(p) ** 2,), s) for p, s in zip(pixels, SmallPyramid.strides, strict=True)])
    off = (cells[:, None] - (boxes[:, None, :, :2] + boxes[:, None, :, 2:]) / 2).abs().amax(-1)
    large = (boxes[..., 2] - boxes[..., 0] > 8)[:, None]
    near = (off <= stride[:, None] / 2) & ((stride[:, None] == 8) == large)
    there, which = near.any(2), near.int().argmax(2)
    sides, kinds = boxes.gather(1, which[..., None].expand(-1, -1, 4)), classes.gather(1, which)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SmallPyramid(2, norm=False)
        model = Detector(net, Preprocess(SIZE, *COLOURS), ("disc", "square"), "taught")
        adam = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(250):
            rows = torch.randperm(len(x))[:16]
            out, found = model(x[rows]), there[rows]
            fires = nn.functional.binary_cross_entropy_with_logits(out[..., 4], found.float(), reduction="none")
            loss = fires[found].mean() + 2 * fires[~found].mean()
            loss = loss + nn.functional.cross_entropy(out[found][:, 5:], kinds[rows][found])
            loss = loss + (1 - giou(out[found][:, :4], sides[rows][found])).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        adam.zero_grad()
    net.eval()
    return model


class _AnchorFree(nn.Module):
    """Candidates as FCOS has them: at every fourth pixel the distances to four sides, a centerness and two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Conv2d(8, 7, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        out = self.head(self.body(z))
        down, right = (4 * torch.arange(n, device=z.device) + 2.0 for n in out.shape[2:])
        middle = torch.stack(torch.meshgrid(down, right, indexing="ij")[::-1])
        sides = 4 * out[:, :4].exp()
        corners = torch.cat([middle - sides[:, :2], middle + sides[:, 2:]], 1)
        return torch.cat([corners, out[:, 4:5] + 2, 6 * out[:, 5:]], 1).flatten(2).mT


def conv_detector() -> Detector:
    """Two classes in pictures of 16 x 24 pixels: 24 candidates."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _AnchorFree()
    return Detector(net, Preprocess((16, 24), (0.5,) * 3, (0.25,) * 3), ("red", "blue"))


def conv_segmenter() -> Segmenter:
    """Three classes of pixels in pictures of 16 x 24, from a map of half the size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        net.append(nn.Conv2d(8, 3, 1))
    return Segmenter(net, Preprocess((16, 24), (0.5,) * 3, (0.25,) * 3), tuple("abc"))
