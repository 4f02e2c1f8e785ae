"""The numbers of methods that change what goes back through single operations: guided gradients and DeepLIFT."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.runner.run import explain
from clearsight.testing import linear
from thinning import with_slow

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)


def classifier(net: nn.Module, size: tuple[int, ...] = (8, 12), classes: int = 3) -> Classifier:
    return Classifier(net, Preprocess(size, MEAN, STD), tuple(map(str, range(classes))))


def logits(model: Classifier, x: Tensor) -> Tensor:
    with model.undisturbed(), torch.no_grad():
        return model(x)


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rectified() -> Classifier:
    """ReLU and ReLU6, of which one is in place, a BatchNorm that is folded, and max-pooling."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.ReLU6(inplace=True),
            nn.Flatten(),
            nn.Linear(5 * 4 * 6, 3),
        )
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2)
        net[1].weight.data.normal_()
    net[4].weight.data *= 8  # some units reach 6
    return classifier(net.eval())


def back_by_hand(model: Classifier, x: Tensor, k: Tensor, guided: bool) -> Tensor:
    """Layer by layer, each with its transpose, and the rule at the ReLUs written out."""
    net = model.net
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        h0 = net[0]((x - mean) / std)
        h1 = net[1](h0)
        h2, where = F.max_pool2d(h1.relu(), 2, return_indices=True)
        h3 = net[4](h2)
        g = net[7].weight[k].view(-1, 5, 4, 6).clamp(min=0)
        g = g * ((h3 > 0) & (h3 < 6)) if guided else g
        g = F.conv_transpose2d(g, net[4].weight, padding=1)
        g = F.max_unpool2d(g, where, 2).clamp(min=0)
        g = g * (h1 > 0) if guided else g
        scale = net[1].weight / (net[1].running_var + net[1].eps).sqrt()
        g = F.conv_transpose2d(g * scale.view(-1, 1, 1), net[0].weight, padding=1)
        return (g / std).sum(1)


@pytest.mark.parametrize(("name", "guided"), [("guided-backprop", True), ("deconvnet", False)])
def test_guided_backprop_and_deconvnet_by_hand(rectified, pictures, name, guided):
    k = torch.tensor([0, 2, 1, 1])
    e = explain(rectified, pictures, name, ClassScore(k))
    torch.testing.assert_close(e.maps, back_by_hand(rectified, pictures, k, guided), rtol=1e-4, atol=1e-5)
    assert (e.forwards, e.backwards) == (1, 1)


def test_the_three_ways_back_differ(rectified, pictures):
    maps = [
        explain(rectified, pictures, name, ClassScore(1)).maps
        for name in ("guided-backprop", "deconvnet", "saliency(absolute=false)")
    ]
    assert not any(torch.allclose(a, b) for a, b in zip(maps, [*maps[1:], maps[0]], strict=True))


def test_guided_grad_cam_is_the_product(rectified, pictures):
    a, b, c = (
        explain(rectified, pictures, name, ClassScore(1)).maps
        for name in ("guided-grad-cam(layer=4)", "guided-backprop", "grad-cam(layer=4)")
    )
    assert a.any()
    torch.testing.assert_close(a, b * c)


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Tanh, nn.Hardswish])
def test_other_activations_are_refused_by_name(activation, pictures):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), activation(), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 10, 3))
    for name in ("guided-backprop", "deconvnet", "guided-grad-cam(layer=0)"):
        with pytest.raises(Refused, match=r"is defined for ReLU, and this network has \w+: use"):
            explain(classifier(net), pictures, name)


# --- DeepLIFT ---------------------------------------------------------------------------------------------------------


class Everything(nn.Module):
    """One of each: gate, skip, concatenation, normalisation by layers and groups, attention, softmax, division."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.group, self.layer = nn.GroupNorm(2, 8), nn.LayerNorm(8)
        self.gate, self.qkv = nn.Linear(8, 8), nn.Linear(8, 24)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.silu(self.a(x)), 2)
        h = h + self.b(F.gelu(self.group(h)))
        h = h * torch.sigmoid(self.gate(h.mean((2, 3))))[:, :, None, None]
        t = self.layer(h.flatten(2).mT)
        q, k, v = self.qkv(t).chunk(3, -1)
        t = t + F.scaled_dot_product_attention(q, k, v)
        t = t / (1 + t.square().mean(-1, keepdim=True))
        out: Tensor = self.head(torch.cat([t.mean(1), F.adaptive_max_pool2d(h, 1).flatten(1)], 1))
        return out


@pytest.fixture
def everything() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return classifier(Everything().eval())


def test_deep_lift_of_a_linear_model_is_weight_times_difference():
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    model, x = linear(weight.tolist()), torch.rand(3, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    e = explain(model, x, "deep-lift(baseline=0.25)", ClassScore([0, 1, 0]))
    torch.testing.assert_close(e.maps, (x[:, 0] - 0.25) * weight[[0, 1, 0]][:, None])


@pytest.mark.parametrize(
    "target", [ClassScore([0, 1, 2, 0]), Margin(0, 2), Margin(1), ClassScore([2, 1, 0, 0], of="prob")]
)
@pytest.mark.parametrize("baseline", [0.0, 0.6])
def test_deep_lift_sums_to_the_difference_in_any_network(everything, pictures, target, baseline):
    e = explain(everything, pictures, f"deep-lift(baseline={baseline})", target)
    before = logits(everything, torch.full_like(pictures, baseline))
    gap = target(logits(everything, pictures)) - target(before)
    best_of_others = isinstance(target, Margin) and target.b is None  # which other is best may change on the way
    assert ((e.maps.flatten(1).sum(1) - gap).abs() <= (5e-3 if best_of_others else 1e-4) * gap.abs() + 1e-5).all()
    torch.testing.assert_close(
        e.diagnostics["completeness residual"], e.maps.flatten(1).sum(1) - gap, rtol=0, atol=1e-5
    )
    assert (gap.abs() > 1e-3).any()


def test_deep_lift_replica(pictures):
    """conv, ReLU, max-pool, dense: multipliers written out one by one."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 5, 3))
    model = classifier(net)
    x, base = pictures[:1], torch.full_like(pictures[:1], 0.1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        (a1, a0) = (net[0]((v - mean) / std)[0] for v in (x, base))
        m = torch.zeros_like(a1)
        above = net[4].weight[2].view(4, 3, 5)
        for c in range(4):
            for i in range(3):
                for j in range(5):
                    window = (c, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
                    now, was = a1[window].relu().flatten(), a0[window].relu().flatten()
                    win, lose = int(now.argmax()), int(was.argmax())
                    top = max(now[win], was[lose])
                    for place, gain in ((win, top - was[lose]), (lose, now[win] - top)):
                        if gain != 0:
                            at = (c, 2 * i + place // 2, 2 * j + place % 2)
                            by = a1[at].relu() - a0[at].relu()
                            rise = by / (a1[at] - a0[at])
                            m[at] += above[c, i, j] * gain / by * rise
        m = F.conv_transpose2d(m[None], net[0].weight) / std
    e = explain(model, x, "deep-lift(baseline=0.1)", ClassScore(2))
    torch.testing.assert_close(e.maps, (m * (x - base)).sum(1), rtol=1e-4, atol=1e-6)


def test_deep_lift_of_few_pictures_at_a_time_is_the_same(everything, pictures, monkeypatch):
    everything.net.double()  # in single precision batches of other sizes are rounded otherwise, on some processors more
    target = ClassScore(torch.arange(len(pictures)) % 3)
    whole = explain(everything, pictures, "deep-lift", target)
    monkeypatch.setattr("clearsight.internals.graph.BYTES", 1)
    alone = explain(everything, pictures, "deep-lift", target)
    torch.testing.assert_close(alone.maps, whole.maps, rtol=1e-4, atol=1e-6)
    for name, values in whole.diagnostics.items():
        torch.testing.assert_close(alone.diagnostics[name], values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name", with_slow(["efficientnet_b0", "densenet121", "shufflenet_v2_x1_0"], "efficientnet_b0", "densenet121")
)
def test_deep_lift_is_complete_in_networks_of_the_field(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
        x = torch.rand(2, 3, 64, 64)
        calibrate(net, torch.randn(8, 3, 64, 64))
    model = Classifier(net, Preprocess(64, MEAN, STD), tuple("abcde"))
    e = explain(model, x, "deep-lift", ClassScore(3))
    gap = ClassScore(3)(logits(model, x)) - ClassScore(3)(logits(model, torch.zeros_like(x)))
    assert (gap.abs() > 1e-3).all()
    torch.testing.assert_close(e.maps.flatten(1).sum(1), gap, rtol=2e-3, atol=1e-4)


def calibrate(net: nn.Module, z: Tensor) -> None:
    """BatchNorm's statistics from data, so that signals neither vanish nor explode."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None
            m.reset_running_stats()
    net.train()
    with torch.no_grad():
        net(z)
    net.eval()
