"""DeepLIFT's rules one by one, and maps held against the target's own change, whatever the map's size."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from clearsight.core.classifier import Classifier
from clearsight.core.diagnostics import SHARE
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.explainers.common import lrp_rules, rescale, rescale_rules, rescale_together
from clearsight.explainers.common.completeness import LEAST, size_of
from clearsight.explainers.deep_lift import deep_lift
from clearsight.internals.graph import word
from clearsight.internals.recording import graph_of
from clearsight.runner.run import explain
from thinning import paired

Fn = Callable[[Tensor], Tensor]


class Run(nn.Module):
    """A function of eight feature maps between a convolution and a head."""

    def __init__(self, fn: Fn) -> None:
        super().__init__()
        self.first, self.fn, self.head = nn.Conv2d(3, 8, 3, padding=1), fn, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.fn(3 * self.first(x)).sin().mean((2, 3)))
        return out


class Bare(nn.Module):
    """A function of the pixels themselves, flattened (B, N), to scores (B, K)."""

    def __init__(self, fn: Fn) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x.flatten(1))


def wrapped(net: nn.Module, size: tuple[int, int] = (8, 6), channels: int = 3, classes: int = 3) -> Classifier:
    return Classifier(net.eval(), Preprocess(size, (0.5,) * channels, (0.25,) * channels), tuple("abcde"[:classes]))


def bare(fn: Fn, pixels: int, classes: int) -> Classifier:
    return Classifier(Bare(fn), Preprocess((1, pixels), (0.0,), (1.0,)), tuple("abcde"[:classes]))


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def pictures(n: int = 3, size: tuple[int, int] = (8, 6), channels: int = 3) -> Tensor:
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(1))


def change(model: Classifier, x: Tensor, baseline: float, target: ClassScore) -> Tensor:
    with model.undisturbed(), torch.no_grad():
        return target(model(x)) - target(model(torch.full_like(x, baseline)))


def tokens(h: Tensor) -> Tensor:
    return h.flatten(2).mT


def attention(h: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(h, 2 * h, h, is_causal=True)


MODULES: dict[str, Callable[[], nn.Module]] = {
    **{n: getattr(nn, n) for n in (
        "ReLU6", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "Softplus", "Tanh",
        "Sigmoid", "LogSigmoid", "Softshrink", "Hardshrink", "Tanhshrink", "Softsign", "LeakyReLU", "PReLU")},
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3, alpha=0.5),
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "InstanceNorm": lambda: nn.InstanceNorm2d(8, 1e-3),
    "BatchNorm": lambda: nn.BatchNorm2d(8),
    "RMSNorm": lambda: nn.RMSNorm(6),
    "LayerNorm": lambda: nn.LayerNorm([8, 8, 6], 1e-3),
    "gelu tanh": lambda: nn.GELU("tanh"),
}  # fmt: skip

FUNCTIONS: dict[str, Fn] = {
    "glu": lambda h: torch.cat([F.glu(h, 1)] * 2, 1),
    "abs": torch.abs, "exp": torch.exp, "sqrt": lambda h: h.abs().sqrt(), "log": lambda h: (1 + h.square()).log(),
    "pow": lambda h: h.abs() ** 1.5, "power of a number": lambda h: 2**h, "clamp": lambda h: h.clamp(-1, 1),
    "gate": lambda h: h * h.mean((2, 3), keepdim=True).sigmoid(),
    "itself": lambda h: h * h,
    "normalize": lambda h: F.normalize(h, dim=1), "norm 1": lambda h: h / h.norm(p=1, dim=1, keepdim=True),
    "norm 3": lambda h: h / h.norm(p=3, dim=1, keepdim=True),
    "norm inf": lambda h: h / h.norm(p=float("inf"), dim=1, keepdim=True),
    "cosine": lambda h: F.cosine_similarity(h, h.flip(1), dim=1)[:, None].expand(-1, 8, -1, -1),
    "std": lambda h: h / (1 + h.std((2, 3), keepdim=True)),
    "variance": lambda h: h / (1 + h.var((2, 3), keepdim=True, correction=0)),
    "variance and mean": lambda h: sum(torch.var_mean(h, (2, 3), keepdim=True)) * h,
    "softmax": lambda h: h.softmax(1), "steep softmax": lambda h: (50 * h).softmax(1),
    "log_softmax": lambda h: h.log_softmax(1), "softmin": lambda h: F.softmin(h, 1),
    "logsumexp": lambda h: h.logsumexp(1, keepdim=True) * h,
    "attention": attention,
    "einsum": lambda h: torch.einsum("bchw,bcvw->bchv", h, h).mean(-1, keepdim=True) + h,
    "max": lambda h: h.max(1, keepdim=True)[0] * h, "min": lambda h: h.min(1, keepdim=True)[0] * h,
    "amax": lambda h: h - h.amax((2, 3), keepdim=True), "amin": lambda h: h - h.amin(1, keepdim=True),
    "maximum": lambda h: torch.maximum(h, h.flip(1)), "minimum": lambda h: torch.minimum(h, h.flip(1)),
    "maximum with a number": lambda h: torch.maximum(h, torch.zeros(1)),
    "max pool": lambda h: F.max_pool2d(h, 3, 1, 1), "lp pool": lambda h: F.lp_pool2d(h.abs(), 2.0, 2),
    "adaptive max pool": lambda h: F.adaptive_max_pool2d(h, 2),
    "avg pool": lambda h: F.avg_pool2d(h, 3, 1, 1).relu(),
    "interpolate": lambda h: F.interpolate(h.relu(), size=(5, 9), mode="bicubic"),
    "pieces": lambda h: torch.cat([h.split(3, 1)[0], torch.stack(h.unbind(1)[3:], 1).roll(1, 2)], 1)[..., 1:].relu(),
    "masked": lambda h: h.relu().masked_fill(torch.eye(6, dtype=torch.bool)[:1], 0.0),
    "written into": lambda h: _written(h),
    "detached": lambda h: h.relu() + h.detach(),
    "fft": lambda h: torch.fft.irfft2(torch.fft.rfft2(h), s=(8, 6)).relu(),
    "grid": lambda h: F.grid_sample(
        h, F.affine_grid(torch.eye(2, 3).expand(len(h), 2, 3) * 0.7, list(h.shape), align_corners=False),
        align_corners=False).relu(),
    "weights of its own": lambda h: F.conv2d(
        h.flatten(0, 1)[None], h[:, :, :3, :3].flatten(0, 1)[:, None], padding=1, groups=8 * len(h))[0].view_as(h),
}  # fmt: skip


def _written(h: Tensor) -> Tensor:
    h = h.clone()
    h[:, 0] = 2 * h[:, 1].relu()
    return h


@pytest.mark.parametrize(("name", "baseline"), paired([*MODULES, *FUNCTIONS], [0.0, 0.5]))
def test_each_rule_is_complete_to_rounding(name, baseline):
    model = wrapped(made(lambda: Run(MODULES[name]() if name in MODULES else FUNCTIONS[name])))
    x, target = pictures(), ClassScore([0, 1, 2])
    due = change(model, x, baseline, target)
    e = explain(model, x, f"deep-lift(baseline={baseline})", target)
    with torch.no_grad():
        size = model(x).abs().max()
    assert ((e.maps.double().flatten(1).sum(1) - due).abs() <= 1e-5 * (due.abs() + size)).all()
    assert e.maps.isfinite().all()
    one = f"integrated-gradients(steps=1, baseline={baseline})"
    if name == "detached":
        with pytest.raises(Refused, match="the gradient at the pixels is not that of the scores"):
            explain(model, x, one, target)
        return
    slopes = explain(model, x, one, target).maps
    assert ((slopes.flatten(1).sum(1) - due).abs() > 1e-4 * size).any()  # no slope at a single place is complete here


def test_a_product_is_shared_as_the_shapley_value_of_its_factors():
    """Two pixels, two players: what each adds, without and with the other."""
    model = bare(lambda p: torch.stack([p[:, 0] * p[:, 1], p[:, 0]], 1), 2, 2)
    x, b = torch.tensor([[[[0.9, 0.3]]]]), 0.2
    worth = {s: (0.9 if 0 in s else b) * (0.3 if 1 in s else b) for s in [(), (0,), (1,), (0, 1)]}
    shapley = [(worth[(i,)] - worth[()] + worth[(0, 1)] - worth[(1 - i,)]) / 2 for i in (0, 1)]
    found = explain(model, x, f"deep-lift(baseline={b})", ClassScore(0)).maps
    torch.testing.assert_close(found.flatten(), torch.tensor(shapley))


def test_a_quotient_is_a_product_turned_round():
    model = bare(lambda p: torch.stack([p[:, 0] / p[:, 1], p[:, 0]], 1), 2, 2)
    found = explain(model, torch.tensor([[[[0.9, 0.3]]]]), "deep-lift(baseline=0.2)", ClassScore(0)).maps.flatten()
    mean, result = (0.3 + 0.2) / 2, (0.9 / 0.3 + 1) / 2
    torch.testing.assert_close(found, torch.tensor([(0.9 - 0.2) / mean, -result * (0.3 - 0.2) / mean]))
    model = bare(lambda p: torch.stack([0.5 / p[:, 1], p[:, 0]], 1), 2, 2)
    found = explain(model, torch.tensor([[[[0.9, 0.3]]]]), "deep-lift(baseline=0.2)", ClassScore(0)).maps.flatten()
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5 / 0.3 - 0.5 / 0.2]))


def test_a_norm_by_hand():
    """From (0.1, 0.1) to (0.6, 0.8): the squares' changes over the sum of both lengths."""
    model = bare(lambda p: torch.stack([p.norm(dim=1), p[:, 0]], 1), 2, 2)
    found = explain(model, torch.tensor([[[[0.6, 0.8]]]]), "deep-lift(baseline=0.1)", ClassScore(0)).maps.flatten()
    torch.testing.assert_close(found, torch.tensor([0.36 - 0.01, 0.64 - 0.01]) / (1 + 0.02**0.5))


def test_small_numbers_have_their_own_changes():
    """Of 1e-8 a change of 1e-8 is large: the root's change over it is no slope at either end."""
    model = bare(lambda p: torch.stack([1e4 * (1e-8 * p[:, 0]).sqrt(), p[:, 1]], 1), 2, 2)
    found = explain(model, torch.tensor([[[[0.81, 0.3]]]]), "deep-lift(baseline=0.04)", ClassScore(0)).maps.flatten()
    torch.testing.assert_close(found, torch.tensor([0.9 - 0.2, 0.0]), rtol=1e-3, atol=1e-6)


def test_a_softmax_by_hand():
    """exp and log by change over change, in plain formulas and double precision."""
    model = bare(lambda p: (5 * p).softmax(1), 3, 3)
    x, b = torch.tensor([0.9, 0.1, 0.6], dtype=torch.float64), 0.3
    now, then = (5 * x).exp(), torch.full((3,), 5 * b, dtype=torch.float64).exp()
    rises = (now - then) / (5 * (x - b))
    of_log = (now.sum().log() - then.sum().log()) / (now.sum() - then.sum())
    log_changes = torch.diag(5 * (x - b)) - (of_log * rises * 5 * (x - b))  # (result, pixel)
    p, q = now / now.sum(), then / then.sum()
    wanted = ((p - q) / (p.log() - q.log()))[:, None] * log_changes
    for k in range(3):
        found = explain(model, x.float().view(1, 1, 1, 3), f"deep-lift(baseline={b})", ClassScore(k)).maps.flatten()
        torch.testing.assert_close(found.double(), wanted[k], rtol=1e-4, atol=1e-6)


def test_a_layer_norm_by_hand():
    """The centred value's change less the result's mean times the deviation's change, over the mean deviation."""
    norm = nn.LayerNorm(4, eps=1e-3, elementwise_affine=False)
    ramp = torch.tensor([0.3, -0.2, 0.5, 0.1])
    model = bare(lambda p: norm(p + ramp), 4, 4)
    x, b = torch.tensor([0.9, 0.1, 0.6, 0.4]), 0.25
    now, then = ((v - v.mean()).double() for v in (x + ramp, b + ramp))
    s, t = ((v.square().mean() + 1e-3).sqrt() for v in (now, then))
    steps = torch.eye(4, dtype=torch.float64) - 0.25  # d centred / d pixel
    centred = steps * (x - b)
    deviation = ((now + then) / (s + t) / 4) @ steps * (x - b)
    y = (now / s + then / t) / 2
    wanted = (centred - y[:, None] * deviation) / ((s + t) / 2)
    for k in range(4):
        found = explain(model, x.view(1, 1, 1, 4), f"deep-lift(baseline={b})", ClassScore(k)).maps.flatten()
        torch.testing.assert_close(found.double(), wanted[k], rtol=1e-4, atol=1e-6)


def test_the_largest_by_hand():
    """0.7 wins where 0.5 won: all of the gain is the winner's; where it loses, the loss is the old winner's."""
    ramp = torch.tensor([0.0, 0.3, 0.0])
    for fn in (lambda p: (p + ramp).amax(1), lambda p: (p + ramp).max(1)[0], lambda p: -(-p - ramp).amin(1)):
        model = bare(lambda p, f=fn: torch.stack([f(p), p[:, 0]], 1), 3, 2)
        found = explain(model, torch.tensor([[[[0.7, 0.1, 0.2]]]]), "deep-lift(baseline=0.2)", ClassScore(0)).maps
        torch.testing.assert_close(found.flatten(), torch.tensor([0.2, 0.0, 0.0]))
        found = explain(model, torch.tensor([[[[0.1, 0.1, 0.2]]]]), "deep-lift(baseline=0.2)", ClassScore(0)).maps
        torch.testing.assert_close(found.flatten(), torch.tensor([0.0, -0.1, 0.0]))


# --- whole networks ---------------------------------------------------------------------------------------------------


class Cosine(nn.Module):
    """A cosine classifier without biases: the features of the mean colour are all 0, and so is their norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 16, 3, bias=False)
        self.w = nn.Parameter(torch.randn(4, 16))

    def forward(self, x: Tensor) -> Tensor:
        f = self.b(self.a(x).relu()).relu().mean((2, 3))
        return 16 * F.linear(F.normalize(f), F.normalize(self.w))


class Vision(nn.Module):
    """A small transformer: patches, layer norms, attention by softmax, GELU, a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 17, 16))
        block = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.cat([self.token.expand(len(x), -1, -1), tokens(self.cut(x))], 1) + self.place
        out: Tensor = self.head(self.norm(self.body(t))[:, 0])
        return out


class Gated(nn.Module):
    """Squeeze and excitation, and normalisation by groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.norm, self.down, self.up, self.head = nn.GroupNorm(4, 8), nn.Linear(8, 4), nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm(self.a(x)))
        h = h * self.up(self.down(h.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
        out: Tensor = self.head(self.b(h).relu().amax((2, 3)))
        return out


TARGETS = [ClassScore([0, 1, 2]), ClassScore([3, 1, 0], of="prob"), Margin(0, 2), Margin(1)]


@pytest.mark.parametrize(("target", "baseline"), paired(TARGETS, [0.0, 0.5]))
@pytest.mark.parametrize("build", [Cosine, pytest.param(Vision, marks=pytest.mark.slow), Gated])
def test_whole_networks_sum_to_the_targets_change(build, baseline, target):
    model, x = wrapped(made(build), (16, 16), classes=4), pictures(3, (16, 16))
    due = change(model, x, baseline, target)
    assert (due.abs() > 1e-3).any()
    e = explain(model, x, f"deep-lift(baseline={baseline})", target)
    sharp = isinstance(target, Margin) and target.b is None  # which other is best may change on the way
    torch.testing.assert_close(e.maps.flatten(1).sum(1), due, rtol=5e-3 if sharp else 1e-4, atol=1e-4)
    torch.testing.assert_close(
        e.diagnostics["completeness residual"], e.maps.flatten(1).sum(1) - due, rtol=0, atol=1e-4
    )
    assert (e.diagnostics[SHARE].abs() < 0.01).all()


class Masked(nn.Module):
    """A mask made from the shape and the type of the maps alone, as shifted windows have it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 3, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        shape = (1, 3, *h.shape[2:])
        mask = h.new_zeros(shape) + h.new_ones(shape) * h.new_full(shape, 0.5)
        out: Tensor = self.head((h * mask).relu().mean((2, 3)))
        return out


def test_masks_of_one_value_do_not_depend_on_the_picture():
    model, x = wrapped(made(Masked), (8, 6), classes=4), pictures(3, (8, 6))
    e = explain(model, x, "deep-lift", ClassScore(1))
    torch.testing.assert_close(e.maps.flatten(1).sum(1), change(model, x, 0.0, ClassScore(1)), rtol=1e-4, atol=1e-5)
    graph = graph_of(model, x[:1])
    assert not [word(node) for node in graph.moving if word(node) in ("zeros", "ones", "full", "new_zeros", "new_ones")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_transformers_of_torchvision_are_complete(name):
    net = made(lambda: torchvision.models.get_model(name, weights=None, num_classes=5))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for m in net.modules():
            if isinstance(m, nn.Linear) and m.out_features == 5:
                nn.init.normal_(m.weight)  # of a new vit_b_16 it is 0
    size = (224, 224) if name == "vit_b_16" else (64, 64)
    model, x = wrapped(net, size, classes=5), pictures(1, size)
    due = change(model, x, 0.0, ClassScore(3))
    e = explain(model, x, "deep-lift", ClassScore(3))
    assert abs(float(due)) > 0.1
    assert abs(float(e.maps.double().sum()) - float(due)) < 1e-3 * abs(float(due))


# --- what is refused --------------------------------------------------------------------------------------------------

NO_RULE: dict[str, Fn] = {
    "gt": lambda h: torch.where(h > 0, h, 0.1 * h),
    "sort": lambda h: h.sort(1)[0],
    "topk": lambda h: h.topk(8, 1)[0],
    "prod": lambda h: h * h.prod(1, keepdim=True),
    "cumprod": lambda h: h.cumprod(1),
    "max_pool2d_with_indices, its places": lambda h: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2),
    "div with a rounding mode": lambda h: torch.div(h, 0.1, rounding_mode="floor"),
    "pow": lambda h: h.abs() ** h,
    "gather": lambda h: h.gather(1, h.argsort(1)),
    "addcmul": lambda h: torch.addcmul(h, h, h),
}


@pytest.mark.parametrize("name", NO_RULE)
def test_what_has_no_rule_is_refused_by_name(name):
    model = wrapped(made(lambda: Run(NO_RULE[name])))
    words = "sort" if name == "gather" else name  # argsort comes first
    with pytest.raises(Refused, match=rf"deep-lift has no rule for '{words}'.*use integrated-gradients"):
        explain(model, pictures(), "deep-lift", ClassScore(0))


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.BatchNorm2d])
def test_layers_without_a_rule_are_refused(recurrent):
    if recurrent is nn.LSTM:
        layer = made(lambda: nn.LSTM(8, 8, batch_first=True))
        model = wrapped(made(lambda: Run(lambda h: layer(tokens(h))[0].mT.reshape(h.shape))))
        words = "mkldnn_rnn_layer"
    else:
        model = wrapped(made(lambda: Run(nn.BatchNorm2d(8, track_running_stats=False))))
        words = "native_batch_norm' with statistics over the batch"
    for n in (1, 3):
        with pytest.raises(Refused, match=f"deep-lift has no rule for '{words}"), model.undisturbed():
            deep_lift(model, pictures(n), ClassScore(0))
        with pytest.raises(Refused, match=r"no rule|depend on its neighbours"):
            explain(model, pictures(n), "deep-lift", ClassScore(0))


def test_a_flat_picture_without_scores_is_refused():
    model = bare(lambda p: torch.cat([p / (p - 0.5), p], 1), 1, 2)
    with pytest.raises(
        Refused, match=r"scores of the baseline, a flat picture of 0\.5, are not finite: give another baseline="
    ):
        explain(model, torch.tensor([[[[0.75]]]]), "deep-lift(baseline=0.5)", ClassScore(0))


# --- the guard --------------------------------------------------------------------------------------------------------


def test_a_rule_that_makes_the_map_large_is_refused(monkeypatch):
    """Slopes of a million, up and down, that miss half of the change: a tiny part of the map, and all of the answer."""
    model, x = wrapped(made(Cosine), (16, 16), classes=4), pictures(3, (16, 16))
    right = rescale_rules.quotient

    def wild(a: Tensor, was_a: Tensor, b: Tensor, was_b: Tensor) -> Tensor:
        out = right(a, was_a, b, was_b)
        swing = 1e6 * (a - a.flip(1)) + 0.5 * a
        return out + (swing - swing.detach())

    monkeypatch.setattr(rescale_rules, "quotient", wild)
    with pytest.raises(Refused, match=r"is not exact for this network.*sums to .*, but the target changes by"):
        explain(model, x, "deep-lift(baseline=0.5)", ClassScore(0))


def test_relevance_is_held_against_the_target_and_not_against_the_map(monkeypatch):
    """A rule that adds as much as it takes away, a thousand times the logit, and loses a tenth of it."""
    net = made(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 4, 3)))
    model, x = wrapped(net), pictures()
    right = lrp_rules.positive

    def wild(op: lrp_rules.Linear, r: Tensor) -> tuple[Tensor, Tensor]:
        share, kept = right(op, r)
        turns = torch.ones_like(share)
        turns[..., ::2] = -1
        size = share.flatten(1).abs().sum(1).view(-1, *[1] * (share.dim() - 1))
        return 0.9 * share + 1000 * size * turns, kept

    monkeypatch.setattr("clearsight.explainers.lrp.positive", wild)
    with pytest.raises(Refused, match="% of the relevance"):
        explain(model, x, "lrp(composite=plus)", ClassScore(0))


def test_shapley_values_that_do_not_sum_are_refused(monkeypatch):
    from clearsight.explainers import kernel_shap, partition_shap

    model, x = wrapped(made(Gated), (16, 16), classes=4), pictures(2, (16, 16))
    for name, call in (
        ("kernel-shap", "kernel-shap(samples=40, cells=3)"),
        ("partition-shap", "partition-shap(samples=20)"),
    ):
        e = explain(model, x, call, ClassScore(0))
        assert (e.diagnostics[SHARE].abs() < 1e-3).all(), name
    fit, owen = kernel_shap.constrained_fit, partition_shap.owen_values
    monkeypatch.setattr(kernel_shap, "constrained_fit", lambda z, w, y: 1.05 * fit(z, w, y))
    with pytest.raises(Refused, match="kernel-shap is not exact for this network"):
        explain(model, x, "kernel-shap(samples=40, cells=3)", ClassScore(0))

    def too_much(*args: object) -> tuple[Tensor, float, float]:
        values, empty, full = owen(*args)
        return 1.05 * values, empty, full

    monkeypatch.setattr(partition_shap, "owen_values", too_much)
    with pytest.raises(Refused, match="partition-shap is not exact for this network"):
        explain(model, x, "partition-shap(samples=20)", ClassScore(0))


@pytest.mark.parametrize("background", ["", "baseline=0.3, "])
def test_gradient_shap_notes_what_its_sum_lacks(background):
    """Against the mean of the pictures that were drawn, counted one by one."""
    from clearsight.core import rng

    model, x, target = wrapped(made(Gated), (16, 16), classes=4), pictures(3, (16, 16)), ClassScore([0, 1, 2])
    e = explain(model, x, f"gradient-shap({background}samples=5)", target, batch=2)
    for i, p in enumerate(x):
        with rng.seeded(0, p[None], "gradient-shap"):
            greys = rng.uniform(torch.empty(1, 5, 2))[0, :, 1].tolist()
        with torch.no_grad():
            there = [model(torch.full_like(p[None], 0.3 if background else g))[0, i] for g in greys]
            due = model(p[None])[0, i] - torch.stack(there).mean()
        missing = e.maps[i].sum() - due
        torch.testing.assert_close(e.diagnostics["completeness residual"][i], missing, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(e.diagnostics[SHARE][i], missing / due.abs(), rtol=1e-3, atol=1e-4)


def test_the_size_of_scores_is_what_a_difference_is_rounded_against():
    """Of two logits near 1000 the margin is little, and its rounding is theirs."""
    rows = torch.tensor([[1000.0, 999.5, 0.0], [1.0, 3.0, 2.0]])
    assert size_of(Margin(0, 1), rows).tolist() == [2000.0, 6.0]
    assert size_of(ClassScore(0), rows, 2 * rows).tolist() == [2000.0, 6.0]
    assert size_of(ClassScore(0, of="prob"), rows[:1] * 1e3).tolist() == [1.0]


def test_a_change_of_nothing_makes_rounding_no_large_share():
    """Scores of 1000 that the picture hardly moves: what is missing is rounding, and is said to be little."""
    model = bare(lambda p: torch.stack([1000 + 1e-3 * p.sum(1), p.sum(1)], 1), 6, 2)
    x = torch.rand(2, 1, 1, 6, generator=torch.Generator().manual_seed(0))
    for call in ("integrated-gradients", "deep-lift", "gradient-shap(baseline=0.5)"):
        e = explain(model, x, call, ClassScore(0))
        assert (e.diagnostics[SHARE].abs() < 1e-3).all(), call
        large = e.diagnostics["completeness residual"] / (LEAST * 1000)
        torch.testing.assert_close(e.diagnostics[SHARE], large, rtol=1e-2, atol=1e-9)


# --- in few steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("laid", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("piece", [7, 100, 2**17])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_relu_piece_by_piece_is_the_curve(monkeypatch, laid, piece, rows):
    """Of equal values too: of both signs, at 0, and above a ReLU6."""
    monkeypatch.setattr(rescale, "IN_CACHE", piece)
    g = torch.Generator().manual_seed(0)
    x, was = (4 * torch.randn(n, 4, 5, 6, generator=g) + 2 for n in (3, rows))
    was[:, 0] = x[:1, 0]
    x[:, 1, 0], was[:, 1, 0] = 0.0, 0.0
    x[:, 2, 0], was[:, 2, 0] = 8.0, 8.0
    x, was = (t.to(memory_format=laid).requires_grad_() for t in (x, was))
    back = torch.randn(3, 4, 5, 6, generator=g)
    for high in (6.0, torch.inf):

        def relu(v: Tensor, high: float = high) -> Tensor:
            return F.hardtanh(v, 0, high)  # its slope at both ends is 0 in every PyTorch; that of clamp is not

        many = was.detach().expand_as(x)
        wanted = rescale.vjp(rescale.curve(x, many, relu), x, back)
        found = rescale.opened(x, many, 0.0, high)
        assert torch.equal(found, relu(x))
        torch.testing.assert_close(rescale.vjp(found, x, back), wanted, rtol=1e-5, atol=1e-6)


def test_a_relu_keeps_the_order_of_its_numbers():
    """Of one picture too, whose strides several orders have: convolutions behind it go by them."""
    x = torch.randn(1, 4, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    assert rescale.opened(x, x.detach(), 0.0, torch.inf).stride() == x.stride()


def test_the_winners_of_a_pooling_by_hand():
    """What it gains goes to the winner now, what it loses to the one before; of no change its own slope is left."""
    now = torch.tensor([[[[3.0, 1.0, 1.0, 2.0, 5.0, 0.0, 4.0, 4.0]]]], requires_grad=True)
    was = torch.tensor([[[[1.0, 2.0, 4.0, 0.0, 5.0, 2.0, 0.0, 4.0]]]])

    def pool(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.nn.functional.max_pool2d_with_indices(t, (1, 2))

    out, _ = rescale.peaks(now, was, pool)
    g = rescale.vjp(out, now, torch.tensor([[[[1.0, 10.0, 100.0, 1000.0]]]])).flatten()
    torch.testing.assert_close(g, torch.tensor([0.5, 0.0, 20 / 3, 0.0, 100.0, 0.0, 0.0, 0.0]))


class Plain(nn.Module):
    """Convolutions, one of them read twice, padding to one side, pooling, a sum, and a dense layer."""

    def __init__(self, pool: nn.Module, norm: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 3, bias=False)
        self.pool, self.norm, self.head = pool, nn.BatchNorm2d(6) if norm else nn.Identity(), nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(3 * self.a(x))
        h = F.relu(self.b(h) + h, inplace=True)
        h = self.c(F.pad(h, (0, 1, 0, 1)))
        h = h + self.norm(h.relu())
        out: Tensor = self.head(self.pool(h).flatten(1))
        return out


def plain(pool: nn.Module, norm: bool = False) -> Classifier:
    net = made(lambda: Plain(pool, norm)).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net(pictures())
    return wrapped(net)


POOLS = [nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(2), nn.AdaptiveMaxPool2d(2)]


@pytest.mark.parametrize("laid", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("pool", POOLS)
def test_one_batch_with_the_baseline_is_the_rules_one_by_one(pool, laid):
    """Also where the picture is the baseline in places, so that nothing changes there."""
    model, x = plain(pool, norm=True), pictures()
    x[:, :, :4] = 0
    z, flat = (model.normalised(t).to(memory_format=laid) for t in (x, torch.zeros_like(x[:1])))
    back = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    with model.undisturbed():
        graph = graph_of(model, x[:1])
        all_values = graph.values(torch.cat([z, flat]))  # rounded as those of the pictures: nothing changes exactly
        before = {node: tuple(p[-1:] for p in v) if isinstance(v, tuple) else v[-1:] for node, v in all_values.items()}
        one, two = (z.detach().requires_grad_() for _ in range(2))
        apart = graph(one, rescale_rules.rules(graph, before, 1))
        out, was = rescale_together.run_together(graph, two, flat)
    torch.testing.assert_close((out, was), (apart, before[graph.end]), rtol=1e-5, atol=1e-5)
    found, wanted = rescale.vjp(out, two, back), rescale.vjp(apart, one, back)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert torch.autograd.grad(graph(one).sum(), one)[0].sub(wanted).abs().max() > 0.01  # not the gradient


def test_the_baseline_is_a_row_of_each_product(monkeypatch):
    """Each layer runs once for the pictures and their baseline; that the network runs so is seen, and not computed."""
    model, x, rows = plain(nn.MaxPool2d(2)), pictures(4), []
    explain(model, x, "deep-lift", ClassScore(1))  # what is done once
    monkeypatch.setattr(rescale_together, "with_gap", lambda args: rows.append(len(args[0])) or args)
    with FlopCounterMode(display=False) as counter, model.undisturbed():
        e = explain(model, x, "deep-lift", ClassScore(1))
    assert (rows, e.forwards, e.backwards) == ([5, 5, 5], 5 / 4, 1)
    spent = {packet.__name__: n for packet, n in counter.get_flop_counts()["Global"].items()}
    with FlopCounterMode(display=False) as one, model.undisturbed(), torch.no_grad():
        model(x[:1])
    whole = {packet.__name__: n for packet, n in one.get_flop_counts()["Global"].items()}
    assert spent["convolution"] == 5 * whole["convolution"]
    assert spent["convolution_backward"] == 4 * whole["convolution"]


class Windowed(nn.Module):
    """Windows of all pictures stand on one axis, so that the baseline is no row among them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 24, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).unflatten(2, (2, 4)).transpose(1, 2).flatten(0, 1)
        out: Tensor = self.head(h.relu().flatten(1)).unflatten(0, (-1, 2)).sum(1)
        return out


def test_a_baseline_that_is_no_row_goes_apart():
    model, x = wrapped(made(Windowed)), pictures()
    for _ in range(2):  # the second time it is known
        e = explain(model, x, "deep-lift", ClassScore(1))
        torch.testing.assert_close(e.maps.flatten(1).sum(1), change(model, x, 0.0, ClassScore(1)), rtol=1e-4, atol=1e-5)
        assert rescale_together.plan_of(graph_of(model, x[:1])) is None


def test_the_baseline_goes_once_for_all_pictures():
    model, x = wrapped(made(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 3)))), 5
    e = explain(model, pictures(x), "deep-lift", ClassScore(1))
    assert (e.forwards, e.backwards) == (1 + 1 / 5, 1)
    one = torch.cat([explain(model, p[None], "deep-lift", ClassScore(1)).maps for p in pictures(x)])
    torch.testing.assert_close(e.maps, one, rtol=1e-4, atol=1e-6)
