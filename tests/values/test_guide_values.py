"""What guides give, held against closed forms on networks of a few weights and against the papers' formulas."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import timm
import torch
from torch import Tensor, nn

from clearsight.core.catalogue import catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.free_memory import free_memory
from clearsight.core.preprocess import Preprocess
from clearsight.core.running_statistics import statistics_held
from clearsight.errors import Refused
from clearsight.guides.res import parting_value
from clearsight.internals.twice_differentiable import twice_differentiable
from clearsight.testing import linear, pooled, rectified, training_step
from clearsight.training.guided_memory import kept_by, must_fit
from clearsight.training.losses import guided_loss

FIRST = torch.tensor([[1.0, 0.0]])


def penalty(
    name: str, model: Classifier, x: list[float] | Tensor, inside: list[float], **options: float | str
) -> float:
    pixels = x if isinstance(x, Tensor) else torch.tensor([[[x]]])
    where = torch.tensor([[[inside]]], dtype=torch.float32)
    found = catalogue("guides")[name](training_step(model), pixels.requires_grad_(), FIRST, where, **options)
    return float(found.detach())


def test_right_reasons_is_the_squared_slope_of_the_summed_log_probabilities():
    """Of logits z = W x: the gradient is the sum over classes of W_k - (p W), times the number of classes."""
    weight = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    x = [0.2, 0.9, 0.4]
    p = (weight @ torch.tensor(x)).softmax(0)
    slope = weight.sum(0) - 2 * p @ weight
    wanted = float(slope[1] ** 2 + slope[2] ** 2)
    model = linear(weight.tolist())
    assert penalty("right-reasons", model, x, [1, 0, 0], logarithm=False) == pytest.approx(wanted)
    assert penalty("right-reasons", model, x, [1, 0, 0], weight=3.0) == pytest.approx(3 * math.log1p(wanted))


def test_one_weight_suits_a_new_and_a_sure_network():
    """A network a thousand times as steep has a penalty a million times as large; its logarithm stays near log K."""
    gentle, steep = (penalty("right-reasons", linear([[a, a], [0.0, 0.0]]), [0.3, 0.4], [1, 0]) for a in (0.01, 10.0))
    assert gentle == pytest.approx((0.01 * (1 - 2 / (1 + math.exp(-0.007)))) ** 2, rel=0.1)
    assert 2 < steep < 7 * math.log(2)


def test_energy_is_the_share_of_positive_attribution_outside():
    """Gradient times input of logits W x is W x itself: 0.5, -1, 1.5 and 2, of which 1.5 + 2 lie outside."""
    model = linear([[1.0, -2.0, 3.0, 4.0], [0.0] * 4])
    assert penalty("energy", model, [0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0]) == pytest.approx(3.5 / 4.0)
    assert penalty("energy", model, [0.5, 0.5, 0.5, 0.5], [1, 1, 0.5, 0]) == pytest.approx(2.75 / 4.0)
    assert penalty("energy", model, [0.0, 0.5, 0.0, 0.0], [0, 0, 0, 0]) == 0


@pytest.mark.parametrize("explainer", ["integrated-gradients(steps=4)", "gradient-shap(baseline=0.0, samples=2)"])
def test_of_a_linear_network_complete_explainers_give_the_same_energy(explainer):
    model = linear([[1.0, -2.0, 3.0, 4.0], [0.0] * 4])
    assert penalty("energy", model, [0.5] * 4, [1, 1, 0, 0], explainer=explainer) == pytest.approx(3.5 / 4.0)


def test_energy_falls_as_its_gradient_says():
    """E = c / (b + c) for attributions b inside and c outside: dE/dw_c = x b / (b + c)^2, and dE/dw_b = -x c / ..."""
    model = linear([[2.0, 6.0], [0.0, 0.0]])
    x = torch.tensor([[[[1.0, 0.5]]]], requires_grad=True)
    found = catalogue("guides")["energy"](training_step(model), x, FIRST, torch.tensor([[[[1.0, 0.0]]]]))
    (slope,) = torch.autograd.grad(found.sum(), model.net[1].weight)
    torch.testing.assert_close(slope, torch.tensor([[-3 / 25, 0.5 * 2 / 25], [0, 0]]))


def test_cam_loss_reads_the_map_before_pooling():
    """Two channels with weights 4 and -2: the map is relu(4 a - 2 b) / 2 at each place, here 2, 1 -> 1, 0.5."""
    model = pooled([[4.0, -2.0], [0.0, 0.0]])
    x = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.0]]]])
    assert penalty("cam-loss", model, x, [1, 0]) == pytest.approx(0.5**2 / 2)
    assert penalty("cam-loss", model, x, [0, 1], weight=2.0) == pytest.approx(2 * 1 / 2)
    assert penalty("cam-loss", model, x, [0.5, 0]) == pytest.approx((0.5**2 + 0.5**2) / 2)


def test_gain_is_the_probability_without_the_map_and_the_distance_to_the_annotation():
    model = pooled([[4.0], [0.0]])
    x = torch.tensor([[[[1.0, 0.5]]]])
    left = [1 - 1 / (1 + math.exp(-10 * (a - 0.5))) for a in (1.0, 0.5)]
    mining = 1 / (1 + math.exp(-4 * (1.0 * left[0] + 0.5 * left[1]) / 2))
    assert penalty("gain", model, x, [1, 0], supervision=0.0) == pytest.approx(mining, rel=1e-5)
    assert penalty("gain", model, x, [1, 0], supervision=0.0, mining=3.0) == pytest.approx(3 * mining, rel=1e-5)
    assert penalty("gain", model, x, [1, 0], mining=0.0) == pytest.approx(0.25 / 2)
    assert penalty("gain", model, x, [1, 0], weight=2.0) == pytest.approx(2 * (mining + 0.125), rel=1e-5)


def test_res_is_what_the_authors_compute():
    """Map 1, 0.5, 0 and annotation 1, 0, 0: the threshold 1 parts them, and the blurred annotation is 0.5, 0.25, 0."""
    model = pooled([[4.0], [0.0]])
    x = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    above = [math.tanh(5 * (v - 1.0)) for v in (1.0, 0.5, 0.0)]
    hard = (abs(above[0] - 1) + abs(above[1] + 1) + abs(above[2] + 1)) / 3
    soft = (abs(1 - 1) + abs(0.5 - 0.5) + 0) / 3  # scaled to 1, the blurred annotation is 1, 0.5, 0
    assert penalty("res", model, x, [1, 0, 0], slack=0.0) == pytest.approx(hard + soft, rel=1e-5)
    assert penalty("res", model, x, [1, 0, 0], slack=0.2) == pytest.approx(hard - 0.2 + soft, rel=1e-5)
    assert penalty("res", model, x, [1, 0, 0], slack=2.0) == pytest.approx(soft, abs=1e-6)


def test_res_parts_inside_from_outside_in_each_picture():
    maps = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.9, 0.3], [0.1, 0.2, 0.3]])
    wanted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    assert parting_value(maps, wanted)[:, 0].tolist() == pytest.approx([0.5, 0.3, 0.1])


def test_attention_prior_is_guided_attention():
    """W = 1 - exp(-d^2 / (2 g^2)), averaged over attributions 1, 2, 3, 4 of a sequence of four places."""
    model = linear([[1.0, 2.0, 3.0, 4.0], [0.0] * 4])
    at = [0.125, 0.375, 0.625, 0.875]

    def wanted(far: list[float], g: float) -> float:
        return sum(a * (1 - math.exp(-(d**2) / (2 * g**2))) for a, d in zip((1, 2, 3, 4), far, strict=True)) / 10

    end = penalty("attention-prior", model, [1.0] * 4, [0, 0, 0, 0], at=1.0, width=0.3)
    assert end == pytest.approx(wanted([1 - v for v in at], 0.3))
    near = penalty("attention-prior", model, [1.0] * 4, [1, 0, 0, 0])
    assert near == pytest.approx(wanted([0, 0.25, 0.5, 0.75], 0.2))


@pytest.mark.parametrize(("rows", "columns", "sparse"), [(5, 7, 0.85), (33, 41, 0.6), (33, 41, 0.999)])
def test_attention_prior_measures_the_distance_in_two_axes(rows, columns, sparse):
    """Near and far, and in lines that hold nothing; the third picture has no place at all, the fourth one corner."""
    from clearsight.guides.attention_prior import to_annotation

    generator = torch.Generator().manual_seed(0)
    inside = (torch.rand(4, rows, columns, generator=generator) > sparse).float()
    inside[2:] = 0
    inside[3, -1, 0] = sparse > 0.8  # else all that is far is found soon
    places = torch.cartesian_prod((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns)
    for found, mask in zip(to_annotation(inside), inside, strict=True):
        marked = places[mask.flatten() > 0]
        far = torch.cdist(places, marked).amin(1).square() if len(marked) else torch.zeros(len(places))
        torch.testing.assert_close(found.flatten(), far, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 4])
def test_cheap_second_derivatives_are_those_of_torch(groups):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups),
        nn.Softplus(),
        nn.Conv2d(8, 4, 3, dilation=2),
        nn.Flatten(),
    ).double()
    x = torch.rand(3, 4, 12, 12, dtype=torch.float64).requires_grad_()

    def slopes() -> tuple[Tensor, ...]:
        (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), list(net.parameters()))

    plain = slopes()
    with twice_differentiable():
        cheap = slopes()
    for a, b in zip(cheap, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("learns", "dtype"), [("both", torch.float32), ("both", torch.float64), ("neither", torch.float64)]
)
def test_cheap_second_derivatives_of_fixed_batchnorm_are_those_of_torch(learns, dtype, layout):
    """With weights that learn and without; the slope at the pixels as well."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4, eps=0.01).eval() for _ in range(2)]
    net = nn.Sequential(norms[0], nn.Softplus(), nn.Conv2d(4, 4, 3), norms[1], nn.Flatten()).to(dtype)
    for m in norms:
        for t, value in ((m.weight, 1.0), (m.running_mean, 0.3), (m.running_var, 0.7)):
            t.detach().copy_(value + 0.2 * torch.randn(4))
        m.requires_grad_(learns == "both")
    x = torch.rand(3, 4, 6, 6, dtype=dtype).to(memory_format=layout).requires_grad_()
    mix = torch.rand(3, 64, dtype=dtype)
    state = {k: v.clone() for k, v in net.state_dict().items()}

    def slopes() -> tuple[Tensor, ...]:
        out = net(x)
        (g,) = torch.autograd.grad((out**3 * mix).sum(), x, create_graph=True)
        loss = g.square().sum() + (out * mix).square().sum()
        return g.detach(), *torch.autograd.grad(loss, [p for p in net.parameters() if p.requires_grad])

    plain = slopes()
    with twice_differentiable():
        cheap = slopes()
    assert len(cheap) == (7 if learns == "both" else 3)
    near = 1e-5 if dtype == torch.float32 else 1e-11
    for a, b in zip(cheap, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=near, atol=near * float(b.abs().max()))
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_cheap_second_derivatives_of_batchnorm_are_those_of_torch(momentum):
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4, momentum=momentum, eps=0.01) for _ in range(2)]
    net = nn.Sequential(norms[0], nn.Softplus(), nn.Conv2d(4, 4, 3), norms[1], nn.Flatten()).double()
    for m in norms:
        nn.init.normal_(m.weight)
    x = torch.rand(3, 4, 6, 6, dtype=torch.float64).requires_grad_()
    mix = torch.rand(3, 64, dtype=torch.float64)

    def slopes() -> tuple[Tensor, ...]:
        out = net(x)
        (g,) = torch.autograd.grad((out**3 * mix).sum(), x, create_graph=True)
        (flat,) = torch.autograd.grad((out * mix).sum(), x, create_graph=True)  # nothing comes back to the last layer
        of_flat = torch.autograd.grad(flat.square().sum(), [norms[1].weight, norms[0].weight], retain_graph=True)
        loss = g.square().sum() + (out * mix).square().sum()
        return *of_flat, *torch.autograd.grad(loss, list(net.parameters()))

    plain, state = slopes(), {k: v.clone() for k, v in net.state_dict().items()}
    for m in norms:
        m.reset_running_stats()
    with twice_differentiable():
        cheap = slopes()
    for a, b in zip(cheap, plain, strict=True):
        torch.testing.assert_close(a, b)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, state[name])


@pytest.mark.parametrize(
    ("name", "trains"),
    [
        ("small", True),
        ("small", False),
        pytest.param("tf_efficientnet_lite0", True, marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_lite0", False, marks=pytest.mark.slow),
        pytest.param("resnet18", True, marks=pytest.mark.slow),
        pytest.param("resnet18", False, marks=pytest.mark.slow),
    ],
)
def test_gradients_of_a_guided_step_are_those_of_torch(name, trains, monkeypatch):
    """Of whole networks, in float64: every weight's, by the energy loss and the labels together; and a second time."""
    torch.manual_seed(0)
    net = (small() if name == "small" else timm.create_model(name, num_classes=2)).double()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.train(trains)
    model = Classifier(net, Preprocess((32, 32), (0.5,) * 3, (0.25,) * 3), ("a", "b"))
    x, y, inside = (
        torch.rand(3, 3, 32, 32, dtype=torch.float64),
        torch.eye(2).double()[[0, 1, 0]],
        torch.zeros(3, 1, 32, 32),
    )
    inside[..., :16] = 1

    def slopes(twice: bool = False) -> tuple[Tensor, ...]:
        step, at = training_step(model), x.detach().requires_grad_()
        penalty = guided_loss(parse("energy(weight=10)", "guides"), step, at, y, inside)
        loss = penalty + step.cross_entropy(step.forward(at), y.float()).mean()
        if twice:
            torch.autograd.grad(loss, list(net.parameters())[:5], retain_graph=True)
        return torch.autograd.grad(loss, list(net.parameters()))

    with statistics_held(net):
        cheap, again = slopes(), slopes(twice=True)
        monkeypatch.setattr("clearsight.guides.common.maps.twice_differentiable", nullcontext)
        plain = slopes()
    largest = max(float(b.abs().max()) for b in plain)  # that of a bias in front of BatchNorm is 0 but for rounding
    for a, b, c in zip(cheap, plain, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * largest)
        assert torch.equal(a, c)


def small() -> nn.Module:
    """The layers of an EfficientNet-Lite0, three of its kind, with a sum."""
    wide = nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(True)
    deep = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(True)
    block = nn.Sequential(*wide, *deep, nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            return x + self.block(x)

    first = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(True)
    return nn.Sequential(*first, Around(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_at_few_channels_is_folded_and_torchs(channels):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 6, 5, stride=2, padding=1), nn.Softplus(), nn.Conv2d(6, 2, 3), nn.Flatten())
    x = torch.rand(2, channels, 14, 13).requires_grad_()

    def slopes() -> tuple[Tensor, ...]:
        (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return g.detach(), *torch.autograd.grad(g.square().sum(), list(net.parameters()))

    plain = slopes()
    with twice_differentiable(), torch.profiler.profile(acc_events=True) as seen:
        cheap = slopes()
    assert "aten::col2im" in {e.key for e in seen.key_averages()}
    for a, b in zip(cheap, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("inplace", [False, True])
def test_cheap_second_derivatives_of_relus_are_those_of_torch(inplace):
    """At the very ends too, where torch's slope is 0, and of numbers that are none, which it lets through a ReLU."""
    torch.manual_seed(0)
    layers = [nn.ReLU(inplace), nn.ReLU6(inplace), nn.Hardtanh(-0.5, 0.5, inplace)]
    ends = torch.tensor([-0.5, 0.0, 0.5, 6.0, 7.0, -7.0, float("nan"), 0.3], dtype=torch.float64)
    for layer in layers:
        net = nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 3)).double()
        with torch.no_grad():
            net[0].weight.mul_(6)
        x = torch.randn(5, 8, dtype=torch.float64).requires_grad_()

        def slopes(net: nn.Module = net, x: Tensor = x) -> tuple[Tensor, ...]:
            out = net(x)
            (g,) = torch.autograd.grad((out**3).sum(), x, create_graph=True)
            return torch.autograd.grad(g.square().sum() + out.square().sum(), list(net.parameters()))

        plain = slopes()
        with twice_differentiable():
            cheap = slopes()
        for a, b in zip(cheap, plain, strict=True):
            torch.testing.assert_close(a, b)
        straight = [ends.clone().requires_grad_() for _ in range(2)]
        wanted = torch.autograd.grad(layer(straight[0] * 1).sum(), straight[0])
        with twice_differentiable():
            found = torch.autograd.grad(layer(straight[1] * 1).sum(), straight[1])
        torch.testing.assert_close(found, wanted, equal_nan=True)
    with twice_differentiable():
        assert nn.functional.relu6(ends.requires_grad_()).tolist()[1:6] == [0, 0.5, 6, 6, 0]


def test_the_cheap_forms_are_those_that_run():
    x = torch.rand(2, 3, 8, 8).requires_grad_()
    with twice_differentiable():
        made = nn.Conv2d(3, 4, 3)(x), nn.Conv1d(8, 2, 3)(x.mean(1)), nn.BatchNorm2d(3)(x)
        clamped = (
            nn.ReLU()(x),
            nn.ReLU(True)(x * 1),
            x.relu(),
            nn.ReLU6()(x),
            nn.functional.relu6(x),
            nn.ReLU6(True)(x * 1),
            nn.Hardtanh()(x),
        )
        fixed, still = nn.BatchNorm2d(3).eval()(x), nn.Conv2d(3, 4, 3)(x.detach())
    outside = nn.Conv2d(3, 4, 3)(x)
    assert [type(t.grad_fn).__name__ for t in made] == ["_ConvolutionBackward"] * 2 + ["_StandardisedBackward"]
    assert {type(t.grad_fn).__name__ for t in clamped} == {"_ClampedBackward"}
    assert type(fixed.grad_fn).__name__ == "_ScaledBackward"
    assert not any(type(t.grad_fn).__name__.startswith("_") for t in (still, outside))


@pytest.mark.parametrize(
    ("shape", "sides", "value"),
    [((2, 3, 5, 4), (0, 1, 2, 0), 0.0), ((2, 3, 5, 4), (1, 2), -1.5), ((2, 3, 6), (2, 1, 1, 0), 0.0)],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cheap_second_derivatives_of_padding_are_those_of_torch(shape, sides, value, layout):
    """Of padding before BatchNorm, which takes its gradient as it is, and before a convolution."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    x = x.to(memory_format=layout) if x.dim() == 4 else x
    layers = (nn.Conv1d, nn.BatchNorm1d) if x.dim() == 3 else (nn.Conv2d, nn.BatchNorm2d)
    wide = nn.functional.pad(x, sides, value=value)
    front, back = layers[0](3, 3, 1).double(), layers[0](wide.shape[1], 2, 2).double()
    norm = layers[1](3).double()
    x.requires_grad_()

    def slopes() -> tuple[Tensor, ...]:
        out = back(nn.functional.pad(norm(front(x)), sides, value=value))
        (g,) = torch.autograd.grad((out**3).sum(), x, create_graph=True)
        learnt = [*front.parameters(), *back.parameters(), *norm.parameters()]
        return g.detach(), *torch.autograd.grad(g.square().sum() + out.square().sum(), learnt)

    plain = slopes()
    with twice_differentiable():
        cheap, padded = slopes(), nn.functional.pad(x, sides, value=value)
        cut = nn.functional.pad(x, (-1, 0))
    assert type(cut.grad_fn).__name__ != "_PaddedBackward"
    assert type(padded.grad_fn).__name__ == "_PaddedBackward"
    assert torch.equal(padded, wide)
    assert padded.stride() == wide.stride()
    largest = max(float(b.abs().max()) for b in plain)  # that of a bias in front of BatchNorm is 0 but for rounding
    for a, b in zip(cheap, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-11 * largest)


def test_cheap_second_derivatives_reach_parameters_before_the_first_convolution():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.body = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.body(x * self.scale).square().sum((2, 3))
            return out

    net, x = Scaled(), torch.rand(2, 1, 5, 5).requires_grad_()
    wanted = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    with twice_differentiable():
        found = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_what_a_guided_step_keeps_is_counted(monkeypatch):
    model = rectified([[1.0] * 64] * 32, [[1.0] * 32] * 2)
    step, guide = training_step(model), parse("right-reasons", "guides")
    x, y, inside = torch.rand(16, 1, 1, 64), FIRST.expand(16, 2), torch.ones(16, 1, 1, 64)
    two = kept_by(guide, step, x[:2].requires_grad_(), y[:2], inside[:2])
    assert two >= 2 * 4 * (64 + 32 + 2)  # the pixels, the units and the logits at least
    assert kept_by(guide, step, x[:4].requires_grad_(), y[:4], inside[:4]) == pytest.approx(2 * two, rel=0.1)
    must_fit(guide, step, x, y, inside)
    monkeypatch.setattr("clearsight.training.guided_memory.free_memory", lambda device: 4 * two)
    with pytest.raises(Refused, match=r"a step by right-reasons of 16 pictures needs .*--batch 4 would fit"):
        must_fit(guide, step, x, y, inside)
    monkeypatch.setattr("clearsight.training.guided_memory.free_memory", lambda device: two // 2)
    with pytest.raises(Refused, match="looks at one layer"):
        must_fit(guide, step, x, y, inside)
    monkeypatch.setattr("clearsight.training.guided_memory.free_memory", lambda device: None)
    must_fit(guide, step, x, y, inside)


def test_counting_leaves_batchnorm_and_chance_alone():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(18, 2))
    model = Classifier(net, Preprocess((5, 5), (0.0,), (1.0,)), ("a", "b"))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    chance = torch.get_rng_state()
    x = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept_by(parse("cam-loss(layer=1)", "guides"), training_step(model), x, torch.eye(2), torch.ones(2, 1, 5, 5))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(chance, torch.get_rng_state())


def test_free_memory_is_what_linux_says():
    free = free_memory(torch.device("cpu"))
    assert free is None or 0 < free < 2**50
    assert free_memory(torch.device("meta")) is None


def test_a_control_group_bounds_it(tmp_path):
    from clearsight.core.free_memory import available, left_in_group

    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "700\n"),
        ("memory.stat", "anon 5\ninactive_file 60\n"),
    ):
        (tmp_path / name).write_text(text)
    assert left_in_group(tmp_path) == 360
    (tmp_path / "memory.max").write_text("max\n")
    assert left_in_group(tmp_path) is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  7 kB\n")
    assert available(tmp_path / "meminfo") == 7 * 1024
    assert available(tmp_path / "nothing") is None
