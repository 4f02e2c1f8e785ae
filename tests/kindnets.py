"""A detector and a segmenter of a few convolutions, with random weights, and pictures for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.core.preprocess import Preprocess
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter


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
