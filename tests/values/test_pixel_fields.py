"""Receptive fields of output pixels: closed forms, and the arithmetic of the layer table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.classifier import Classifier, Preprocess
from clearsight.errors import Refused
from clearsight.inspecting.layer_table import layer_table
from clearsight.internals.pixel_fields import effective_field, effective_side, theoretical_field


def ones(depth: int) -> nn.Sequential:
    """Convolutions 3 x 3 whose weights are all 1/9, on one channel."""
    net = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)))
    for layer in net:
        layer.weight.data.fill_(1 / 9)
    return net


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_averages_of_averages_see_what_a_walk_reaches(depth: int) -> None:
    """The field is the distribution of a walk of so many steps of -1, 0 or 1, along both axes (Luo et al., 2.1)."""
    walk = torch.ones(1)
    for _ in range(depth):
        walk = F.conv1d(walk[None, None], torch.full((1, 1, 3), 1 / 3), padding=2)[0, 0]
    field = effective_field(ones(depth), torch.rand(3, 1, 21, 21), (10, 10))
    wanted = torch.zeros(21, 21)
    wanted[10 - depth : 11 + depth, 10 - depth : 11 + depth] = walk[:, None] * walk
    torch.testing.assert_close(field, wanted)
    assert theoretical_field(ones(depth), torch.zeros(1, 1, 21, 21), (10, 10)) == (
        10 - depth,
        10 - depth,
        11 + depth,
        11 + depth,
    )
    assert effective_side(field) == pytest.approx(float((wanted > 0.0455 * wanted.max()).sum()) ** 0.5)


def test_the_effective_field_grows_with_the_root_of_the_depth() -> None:
    """Its side is about 2 x 2.49 x sqrt(2/3 depth) (the walk's step has a variance of 2/3), the box's 2 depth + 1."""
    sides = {}
    for depth in (8, 32):
        net, size = ones(depth), 2 * depth + 1
        sides[depth] = effective_side(effective_field(net, torch.zeros(1, 1, size, size), (depth, depth)))
    assert sides[32] / sides[8] == pytest.approx(2, rel=0.08)
    disc = torch.pi**0.5 * 2.486 * (32 * 2 / 3) ** 0.5  # the disc within 2.49 standard deviations, as a square
    assert sides[32] == pytest.approx(disc, rel=0.03)


def test_pictures_and_channels_do_not_cancel_each_other() -> None:
    """The gradient of half a square is the pixel itself: 1 and -3 in one picture, -1 and -3 in the other."""
    z = torch.tensor([[1.0, -3.0], [-1.0, -3.0]]).view(2, 2, 1, 1)
    field = effective_field(lambda x: x.square().sum(1, keepdim=True) / 2, z, (0, 0))
    assert field.tolist() == [[4.0]]


class _Skips(nn.Module):
    """Strides, a pool, an upsampled branch and a skip, as in a FCN."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 4, 4, stride=4)
        self.up = nn.ConvTranspose2d(4, 4, 4, stride=4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        skip = self.first(x)
        return {"out": self.up(self.down(skip).relu()) + skip}


def test_an_upsampled_pixel_sees_its_cell_and_its_own_skip() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _Skips()
    # row 9, column 14 lie in the cell of rows 8 to 11 and columns 12 to 15, and the 3 x 3 before it sees one more
    assert theoretical_field(net, torch.zeros(1, 3, 24, 32), (9, 14)) == (11, 7, 17, 13)
    assert theoretical_field(net, torch.zeros(1, 3, 24, 32), (0, 31)) == (27, 0, 32, 5)  # cut off at the edge
    field = effective_field(net, torch.rand(2, 3, 24, 32), (9, 14), channel=2)
    seen = field.nonzero()
    assert (seen.amin(0).tolist(), seen.amax(0).tolist()) == ([7, 11], [12, 16])


def test_the_box_is_the_layer_tables() -> None:
    """The arithmetic of kernels, strides and dilations, followed operation by operation, gives the same size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, dilation=2), nn.ReLU(),
            nn.Conv2d(6, 5, 1),
        )  # fmt: skip
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Classifier(net, Preprocess((64, 64), (0.0,) * 3, (1.0,) * 3), tuple("abcde"), "five")
    field = next(r for r in layer_table(model).rows if r.name == "0.5").field
    x1, y1, x2, y2 = theoretical_field(body, torch.zeros(1, 3, 64, 64), (4, 5))
    assert (y2 - y1, x2 - x1) == field.size == (23, 23)
    next_x1 = theoretical_field(body, torch.zeros(1, 3, 64, 64), (4, 6))[0]
    assert next_x1 - x1 == field.step[1] == 4


def test_what_cannot_be_asked_is_refused() -> None:
    net = ones(1)
    with pytest.raises(Refused, match="row 5, column 0: the output has 5 rows"):
        theoretical_field(net, torch.zeros(1, 1, 5, 5), (5, 0))
    with pytest.raises(Refused, match="channel 1"):
        effective_field(net, torch.rand(1, 1, 5, 5), (0, 0), channel=1)
    with pytest.raises(Refused, match="need outputs"):
        theoretical_field(nn.Flatten(), torch.zeros(1, 1, 5, 5), (0, 0))
    with pytest.raises(Refused, match="depends on no pixel"):
        theoretical_field(lambda z: 0 * z, torch.zeros(1, 1, 5, 5), (0, 0))
    assert effective_side(torch.zeros(3, 3)) == 0
    z = torch.rand(1, 1, 5, 5)
    with torch.no_grad():
        assert effective_field(net, z, (2, 2)).sum() == pytest.approx(1)
    assert not z.requires_grad
    assert net[0].weight.grad is None
