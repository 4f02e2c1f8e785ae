"""Maps of rules and of components that a guide trains on: the explainer's own, with the slope of their values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.core.way_back import operations_behind
from clearsight.errors import Refused
from clearsight.explainers.eigen_cam import first_component
from clearsight.guides.common.maps import learnable_maps
from clearsight.internals.kept_graph import keeping_graph
from clearsight.testing import training_step

RULES = [
    "lrp",
    "lrp(composite=epsilon)",
    "lrp(composite=epsilon-plus-box)",
    "lrp(composite=epsilon-alpha-beta-flat)",
    "lrp(composite=epsilon-gamma-box)",
    "contrastive-lrp",
    "contrastive-lrp(kind=clrp2)",
    "relevance-cam",
    "relevance-cam(layer=branch)",
    "rap",
    "eigen-cam",
]


class Small(nn.Module):
    """What convolutional networks are made of: BatchNorm, ReLU, pools, a sum, filters of groups, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(2))
        self.branch = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6), nn.SiLU())
        self.last = nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        scores: Tensor = self.head(self.last(x + self.branch(x)).mean((2, 3)))
        return scores


def small(kind: type[nn.Module]) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = kind().double()
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                for t, value in ((m.weight, 1.0), (m.bias, 0.2), (m.running_mean, 0.1), (m.running_var, 0.7)):
                    t.detach().copy_(value + 0.1 * torch.randn(6))
    return Classifier(net, Preprocess((10, 10), (0.5,) * 3, (0.3,) * 3), ("a", "b", "c"))


def pictures() -> tuple[Tensor, Tensor]:
    x = torch.rand(3, 3, 10, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return x, torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize("spelling", RULES)
@pytest.mark.parametrize("trains", [True, False])
def test_the_map_that_is_guided_is_the_explainers_own(spelling, trains):
    """Of rules also while BatchNorm trains: they are the network's at rest.  A layer's values are the batch's."""
    model, (x, y), call = small(Small), pictures(), parse(spelling, "explainers")
    model.net.eval()
    wanted = call.method(model, x, ClassScore(y.argmax(1)), **call.options)
    model.net.train(trains and spelling != "eigen-cam")
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    found = learnable_maps(training_step(model), x.clone().requires_grad_(), y, spelling)
    assert found.requires_grad
    assert not wanted.requires_grad
    torch.testing.assert_close(found.detach().float(), wanted.float(), rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert model.net.training == (trains and spelling != "eigen-cam")
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())


class Transposed(nn.Module):
    """A transposed convolution that sees the pixels, and one of groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.ConvTranspose2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.last = nn.Sequential(nn.ConvTranspose2d(6, 4, 2, groups=2), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.last(self.first(x)).mean((2, 3)))
        return scores


OF_KINDS = [*((Small, spelling) for spelling in RULES), (Transposed, "lrp"), (Transposed, "contrastive-lrp")]


@pytest.mark.parametrize(("kind", "spelling"), OF_KINDS)
def test_its_slope_in_every_weight_is_that_of_finite_differences(kind, spelling):
    """In float64, by steps so short that no ReLU is crossed: along the slope, and along each weight's part of it."""
    model, (x, y) = small(kind), pictures()
    model.net.eval()
    mix = torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    weights = list(model.net.parameters())

    def value() -> Tensor:
        maps = learnable_maps(training_step(model), x.clone().requires_grad_(), y, spelling)
        return (maps * mix).sum()

    slopes = torch.autograd.grad(value(), weights, allow_unused=True)
    sizes = [0.0 if g is None else float(g.norm()) for g in slopes]
    assert sum(size > 0 for size in sizes) >= 3
    draw = torch.Generator().manual_seed(9)
    for p, g, size in zip(weights, slopes, sizes, strict=True):
        way = g if size > 0 else torch.randn(p.shape, generator=draw, dtype=p.dtype)  # which should lead nowhere
        way, ends = way / way.norm(), []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                p += step * way
            ends.append(float(value().detach()))
            with torch.no_grad():
                p -= step * way
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(size, rel=1e-5, abs=1e-7 * max(sizes))


@pytest.mark.parametrize(("kind", "cheap"), [(Small, True), (Transposed, False)])
def test_its_way_back_through_convolutions_is_the_cheap_one(kind, cheap):
    """But for transposed ones, which have none."""
    model, (x, y) = small(kind), pictures()
    maps = learnable_maps(training_step(model), x.requires_grad_(), y, "lrp")
    names = {str(node.name()) for node in operations_behind(maps)}
    assert ("_AtInputBackward" in names) == cheap
    assert ("ConvolutionBackwardBackward0" in names) != cheap


def test_two_components_of_one_size_are_refused_where_a_slope_is_wanted():
    a = torch.tensor([[[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]], dtype=torch.float64, requires_grad=True)
    first_component(a)
    with keeping_graph(), pytest.raises(Refused, match="two largest components of the layer are equal"):
        first_component(a)
