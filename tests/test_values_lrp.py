"""The numbers of layer-wise relevance propagation: by hand, by a slow replica of its rules, and by their sum."""

import functools

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clearsight.core import diagnostics
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier, Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.explainers import _relevance
from clearsight.runner.run import explain
from clearsight.testing import linear

COMPOSITES = (
    "epsilon-plus-flat", "epsilon-plus-box", "epsilon-alpha-beta-flat", "epsilon-alpha-beta-box", "epsilon-gamma-box",
    "epsilon", "gamma", "alpha-beta", "plus", "flat",
)  # fmt: skip
MEAN, STD = (0.5, 0.4), (0.25, 0.5)
every_composite = pytest.mark.parametrize("composite", COMPOSITES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lrp(model: Classifier, x: Tensor, target, composite: str, **options) -> Tensor:
    words = ", ".join(f"{k}={v}" for k, v in {"composite": composite, **options}.items())
    return explain(model, x, f"lrp({words})", target).maps


class Run(nn.Module):
    """A network whose forward is the function given, over the modules given."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self.how = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


@functools.cache
def made(build, size: tuple[int, ...] = (9, 10), *, bias: bool = True, seed: int = 0) -> tuple[Classifier, Tensor]:
    """A classifier of three classes around a network with random weights, also in its BatchNorm; and pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build().double().eval()
        for name, p in net.named_parameters():
            if p.dim() == 1:
                p.data = 0.3 * torch.randn_like(p) + (1 if name.endswith("weight") else 0)
                p.data *= bias or name.endswith("weight")
        for name, b in net.named_buffers():
            if b.is_floating_point():
                b.copy_(torch.rand_like(b) + 0.5 if "var" in name else 0.2 * torch.randn_like(b))
        x = torch.rand(3, 2, *size)
    return Classifier(net, Preprocess(size, MEAN, STD), tuple("abc"), "made"), x


# --- by hand ----------------------------------------------------------------------------------------------------------

PIXELS = torch.tensor([[[[1.0, 0.5, 0.25]]]])
BY_HAND = [  # weights (2, -2, 4) times the pixels are (2, -1, 1): 2 in all.  The negated weights give -2 in all.
    ("composite=epsilon", [2, -1, 1], [-2, 1, -1]),
    ("composite=gamma, gamma=0.5", [3 / 1.75, -1 / 1.75, 1.5 / 1.75], [-3 / 1.75, 1 / 1.75, -1.5 / 1.75]),
    ("composite=plus", [4 / 3, 0, 2 / 3], [0, -2, 0]),
    ("composite=alpha-beta", [8 / 3, -2, 4 / 3], [4 / 3, -4, 2 / 3]),
    ("composite=alpha-beta, alpha=3", [4, -4, 2], [8 / 3, -6, 4 / 3]),
    ("composite=flat", [2 / 3] * 3, [-2 / 3] * 3),
]


@pytest.mark.parametrize(("options", "first", "second"), BY_HAND, ids=[b[0] for b in BY_HAND])
def test_one_layer_by_hand(options, first, second):
    model = linear([[2.0, -2.0, 4.0], [-2.0, 2.0, -4.0]])
    for k, wanted in enumerate((first, second)):
        found = explain(model, PIXELS, f"lrp({options})", ClassScore(k)).maps
        torch.testing.assert_close(found.flatten(), torch.tensor(wanted, dtype=torch.float32), rtol=1e-5, atol=1e-5)


def test_bounds_of_the_pixels_by_hand():
    """zB takes x w - low w+ - high w-; black and white are (0 - mean) / std and (1 - mean) / std."""
    model = linear([[2.0, -2.0, 4.0], [0.0] * 3])
    for name in ("epsilon-plus-box", "epsilon-alpha-beta-box", "epsilon-gamma-box"):  # 2, -1 + 2, 1 share the 2
        found = lrp(model, PIXELS, ClassScore(0), name)
        torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 0.5, 0.5]))
    net = linear([[4.0, -2.0, 2.0], [0.0] * 3]).net
    model = Classifier(net, Preprocess((1, 3), (0.5,), (0.5,)), ("a", "b"))
    found = lrp(model, PIXELS, ClassScore(0), "epsilon-plus-box")  # pixels 1, 0, -0.5 between -1 and 1: 8, 2, 1
    torch.testing.assert_close(found.flatten(), torch.tensor([24 / 11, 6 / 11, 3 / 11]))


def test_what_biases_keep_by_hand():
    model = linear([[2.0, -2.0, 4.0], [-2.0, 2.0, -4.0]], bias=[1.0, 1.0])
    for name, wanted, kept in (
        ("epsilon", [2.0, -1.0, 1.0], 1 / 3),
        ("plus", [1.5, 0.0, 0.75], 1 / 4),
        ("gamma", [2.5 * 3 / 4, -3 / 4, 1.25 * 3 / 4], 1.25 / 4),
        ("flat", [1.0, 1.0, 1.0], 0.0),
    ):
        e = explain(model, PIXELS, f"lrp(composite={name})", ClassScore(0))
        torch.testing.assert_close(e.maps.flatten(), torch.tensor(wanted), rtol=1e-5, atol=1e-5)
        assert e.receipts["kept by biases"].item() == pytest.approx(kept, abs=1e-5)
    e = explain(model, PIXELS, "lrp(composite=epsilon)", ClassScore(1))  # the logit is -1: the bias has -1 of it
    assert e.receipts["kept by biases"].item() == pytest.approx(-1, abs=1e-5)


def test_epsilon_fades_weak_outputs():
    """An epsilon of 1 adds the root mean square of both outputs to the divisor."""
    model = linear([[2.0, -2.0, 4.0], [-2.0, 2.0, -4.0]])
    found = lrp(model, PIXELS, ClassScore(0), "epsilon", epsilon=1.0)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, -0.5, 0.5]))


def test_epsilon_without_biases_is_gradient_times_input():
    """Also through max-pooling, differences of branches and concatenation; the input is the normalised picture."""

    def forward(s, x):
        h = s.a(x).relu()
        h = F.max_pool2d(torch.sub(h, s.b(h), alpha=2).relu(), 3, 2, ceil_mode=True)
        h = torch.cat([s.c(h).relu(), h], 1)
        return s.d(F.avg_pool2d(h, 2).flatten(1))

    def build():
        return Run(
            forward, a=nn.Conv2d(2, 4, 3, padding=1), b=nn.Conv2d(4, 4, 3, padding=1), c=nn.Conv2d(4, 3, 1),
            d=nn.Linear(7 * 4, 3),
        )  # fmt: skip

    model, x = made(build, bias=False)
    z = model.normalised(x).requires_grad_()
    for k in range(3):
        (g,) = torch.autograd.grad(model.logits(z)[:, k].sum(), z)
        found = lrp(model, x, ClassScore(k), "epsilon", epsilon=1e-9)
        torch.testing.assert_close(found, (g * z).sum(1).detach(), rtol=1e-4, atol=1e-5)


# --- by a slow replica ------------------------------------------------------------------------------------------------


def away(z: np.ndarray, share: float = 1e-6) -> np.ndarray:
    size = share * np.sqrt((z**2).mean())
    return np.where(z < 0, z - size, z + size)


def matrix(conv: nn.Conv2d, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """A convolution as weights (outputs, inputs), where it has any, and the shape of what it gives; loop by loop."""
    channels, height, width = shape
    k, s, p, d = conv.kernel_size[0], conv.stride[0], conv.padding[0], conv.dilation[0]
    out = (conv.out_channels, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n in (height, width)))
    w, there = np.zeros((*out, *shape)), np.zeros((*out, *shape), dtype=bool)
    per_group = channels // conv.groups
    for o in range(out[0]):
        group = o // (conv.out_channels // conv.groups)
        for y in range(out[1]):
            for x in range(out[2]):
                for i in range(per_group):
                    for ky in range(k):
                        for kx in range(k):
                            yy, xx = y * s - p + ky * d, x * s - p + kx * d
                            if 0 <= yy < height and 0 <= xx < width:
                                place = (o, y, x, group * per_group + i, yy, xx)
                                w[place] = conv.weight[o, i, ky, kx].item()
                                there[place] = True
    n = int(np.prod(out))
    return w.reshape(n, -1), there.reshape(n, -1), out


def share_out(rule, x, w, there, b, r, low=None, high=None):
    """One rule, output by output, input by input; x (I,), w (O, I), b and r (O,) -> (I,)."""
    z = w @ x + b
    found = np.zeros_like(x)
    parts = np.zeros_like(w)
    divisor = np.zeros_like(z)
    name, size = rule
    if name == "alpha-beta":
        up = share_out(("plus", 0), x, w, there, b, r)
        down = share_out(("plus", 0), x, -w, there, -b, r)
        return size * up - (size - 1) * down
    for j in range(len(z)):
        for i in range(len(x)):
            c = x[i] * w[j, i]
            if name == "epsilon":
                parts[j, i] = c
            elif name == "plus":
                parts[j, i] = max(c, 0)
            elif name == "gamma":
                parts[j, i] = c * (1 + size) if (c > 0) == (z[j] >= 0) else c
            elif name == "flat":
                parts[j, i] = float(there[j, i])
            elif name == "box":
                parts[j, i] = c - low[i] * max(w[j, i], 0) - high[i] * min(w[j, i], 0)
        bias = {
            "plus": max(b[j], 0),
            "epsilon": b[j],
            "gamma": b[j] * (1 + size) if (b[j] > 0) == (z[j] >= 0) else b[j],
        }
        divisor[j] = parts[j].sum() + bias.get(name, 0.0)
    divisor = away(divisor, size if name == "epsilon" else 1e-6)
    for j in range(len(z)):
        for i in range(len(x)):
            found[i] += parts[j, i] / divisor[j] * r[j]
    return found


def sum_out(parts: list[np.ndarray], r: np.ndarray, *, by_sign: bool) -> list[np.ndarray]:
    """A sum of branches, place by place."""
    z = sum(parts)
    if by_sign:
        parts = [np.where(z >= 0, np.maximum(p, 0), np.minimum(p, 0)) for p in parts]
    divisor = away(sum(parts))
    return [p / divisor * r for p in parts]


def pool_out(x: np.ndarray, r: np.ndarray, *, by_sign: bool) -> np.ndarray:
    """An average over 2 x 2 places with stride 1: x (C, H, W), r (C, H - 1, W - 1)."""
    found = np.zeros_like(x)
    z = (x[:, 1:, 1:] + x[:, :-1, 1:] + x[:, 1:, :-1] + x[:, :-1, :-1]) / 4
    totals = {}
    for sign in (1, -1):
        part = np.maximum(x * sign, 0) * sign
        totals[sign] = away((part[:, 1:, 1:] + part[:, :-1, 1:] + part[:, 1:, :-1] + part[:, :-1, :-1]) / 4)
    plain = away(z)
    for c in range(z.shape[0]):
        for y in range(z.shape[1]):
            for k in range(z.shape[2]):
                for dy in (0, 1):
                    for dx in (0, 1):
                        v = x[c, y + dy, k + dx]
                        sign = 1 if z[c, y, k] >= 0 else -1
                        if not by_sign:
                            found[c, y + dy, k + dx] += v / 4 / plain[c, y, k] * r[c, y, k]
                        elif v * sign > 0:
                            found[c, y + dy, k + dx] += v / 4 / totals[sign][c, y, k] * r[c, y, k]
    return found


RULES = {"plus": ("plus", 0), "alpha": ("alpha-beta", 1.5), "gamma": ("gamma", 0.4), "flat": ("flat", 0)}
RULES |= {"box": ("box", 0), "epsilon": ("epsilon", 0.01)}


def stages(model: Classifier, picture: Tensor) -> dict:
    """What stands in the bent network for one picture (C, H, W), and its layers as matrices."""
    net = model.net
    mean, std = (np.array(v).reshape(2, 1, 1) for v in (MEAN, STD))
    pixels = (picture.double().numpy() - mean) / std
    low, high = ((np.full(pixels.shape, v) - mean) / std for v in (0.0, 1.0))
    silu = lambda v: v / (1 + np.exp(-v))  # noqa: E731

    w1, there1, shape1 = matrix(net.a, pixels.shape)
    b1 = net.a.bias.detach().numpy().repeat(shape1[1] * shape1[2])
    drive = w1 @ pixels.ravel() + b1
    h = silu(drive)
    w2, there2, shape2 = matrix(net.b, shape1)
    b2 = net.b.bias.detach().numpy().repeat(shape2[1] * shape2[2])
    branch = w2 @ h + b2
    after = silu(branch + h).reshape(shape2)
    pooled = (after[:, 1:, 1:] + after[:, :-1, 1:] + after[:, 1:, :-1] + after[:, :-1, :-1]) / 4
    w3, b3 = net.c.weight.detach().numpy(), net.c.bias.detach().numpy()
    return {
        "first": (pixels.ravel(), w1, there1, b1), "conv": (h, w2, there2, b2),
        "last": (pooled.ravel(), w3, w3 == w3, b3), "logits": w3 @ pooled.ravel() + b3,
        "box": (low.ravel(), high.ravel()), "drive": drive.reshape(shape1), "branch": branch, "after": after,
        "pooled": pooled.shape, "pixels": pixels.shape,
    }  # fmt: skip


def way_back(at: dict, r: np.ndarray, first, conv, last, *, by_sign: bool) -> tuple[np.ndarray, np.ndarray]:
    """The map, and the relevance of the first layer's output; a rule is given x, w, there, b, r (and low and high)."""
    r = last(*at["last"], r)
    r = pool_out(at["after"], r.reshape(at["pooled"]), by_sign=by_sign).ravel()
    r_branch, r_straight = sum_out([at["branch"], at["conv"][0]], r, by_sign=by_sign)
    inner = r_straight + conv(*at["conv"], r_branch)
    r = first(*at["first"], inner, *at["box"])
    return r.reshape(at["pixels"]).sum(0), inner.reshape(at["drive"].shape)


def rule(word: str):
    return functools.partial(share_out, RULES[word])


def replica(model: Classifier, picture: Tensor, k: int, composite: str) -> np.ndarray:
    """The map of one picture (C, H, W), rule by rule."""
    words = [w for w in composite.split("-") if w != "beta"]
    first, conv, dense = ((words[2], words[1], words[0]) if len(words) == 3 else words * 3)  # fmt: skip
    at = stages(model, picture)
    start = np.where(np.arange(3) == k, at["logits"], 0)
    return way_back(at, start, rule(first), rule(conv), rule(dense), by_sign=composite != "epsilon")[0]


def bent() -> nn.Module:
    """Strided, grouped and dilated convolutions, inputs of both signs, a sum of branches and an average."""
    return Run(
        lambda s, x: s.c(F.avg_pool2d(F.silu((h := F.silu(s.a(x))) + s.b(h)), 2, 1).flatten(1)),
        a=nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), b=nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        c=nn.Linear(16, 3),
    )  # fmt: skip


@every_composite
def test_a_slow_replica_of_the_rules(composite):
    model, x = made(bent, (5, 6))
    found = lrp(model, x, ClassScore([0, 1, 2]), composite, epsilon=0.01, gamma=0.4, alpha=1.5)
    wanted = np.stack([replica(model, picture, k, composite) for k, picture in enumerate(x)])
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found.numpy() / scale, wanted / scale, rtol=1e-3, atol=2e-4)


# --- by the sum -------------------------------------------------------------------------------------------------------


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.hardswish(self.a(x))
        gate = self.c(F.silu(self.b(h.mean((2, 3), keepdim=True)))).sigmoid()
        return self.d((h * gate).mean((2, 3)))


def dense_block(s, x):
    h = s.a(x).relu()
    h = torch.cat([h, s.b(s.n(h).relu())], 1)
    return s.d(F.adaptive_avg_pool2d(h, 2).flatten(1))


NETS = {
    "biases": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 3))),
    "batch norm": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3))),
    "sums": (9, 10, lambda: Run(
        lambda s, x: s.c(F.relu((h := s.a(x)) - 0.5 * F.leaky_relu(s.b(h))).mean((2, 3))),
        a=nn.Conv2d(2, 4, 3), b=nn.Conv2d(4, 4, 3, padding=1), c=nn.Linear(4, 3))),
    "silu": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Conv2d(4, 5, 3), nn.GELU(), nn.AvgPool2d(3, 2, 1), nn.Flatten(),
        nn.Linear(45, 3))),
    "squeeze and excitation": (9, 10, Squeeze),
    "concatenation": (9, 10, lambda: Run(
        dense_block, a=nn.Conv2d(2, 4, 3), n=nn.BatchNorm2d(4), b=nn.Conv2d(4, 3, 3, padding=1), d=nn.Linear(28, 3))),
    "grouped, dilated, strided": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU6(), nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=1),
        nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))),
    "ceil mode": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Softplus(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3))),
    "no dense layer": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.PReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 3, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten())),
    "layers normalised": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(2), nn.LayerNorm(56), nn.Flatten(),
        nn.Linear(224, 3))),
    "sequence": (20, None, lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(4, 3))),
    "clip": ((4, 6, 5), None, lambda: nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(4, 3))),
}  # fmt: skip


def built(name: str) -> tuple[Classifier, Tensor]:
    first, second, build = NETS[name]
    size = first if isinstance(first, tuple) else (first,) if second is None else (first, second)
    return made(build, size)


@every_composite
@pytest.mark.parametrize("name", NETS)
def test_map_and_what_biases_keep_are_the_logit(name, composite):
    model, x = built(name)
    classes = torch.tensor([0, 1, 2])
    e = explain(model, x, f"lrp(composite={composite})", ClassScore(classes))
    with torch.no_grad():
        logit = model(x).gather(1, classes[:, None])[:, 0].float()
    mass = torch.maximum(logit.abs(), e.maps.flatten(1).abs().sum(1))
    sums = e.maps.flatten(1).sum(1) + e.receipts["kept by biases"] * logit
    assert ((sums - logit) / mass).abs().max() < 1e-4
    assert e.receipts["conservation residual"].abs().max() < 1e-4
    assert e.maps.abs().amax() > 1e-3


def test_where_nothing_is_kept_the_map_is_the_logit():
    model, x = made(NETS["biases"][2], bias=False)
    with torch.no_grad():
        logit = model(x)[:, 1]
    for composite in ("epsilon-plus-flat", "flat", "plus", "epsilon-gamma-box"):
        e = explain(model, x, f"lrp(composite={composite})", ClassScore(1))
        torch.testing.assert_close(e.maps.flatten(1).sum(1), logit.float(), rtol=1e-3, atol=1e-4)
        assert e.receipts["kept by biases"].abs().max() < 1e-3


@every_composite
def test_batch_norm_is_part_of_the_convolution(composite):
    model, x = made(NETS["batch norm"][2])
    conv, norm, *rest = model.net
    folded = Classifier(nn.Sequential(fuse_conv_bn_eval(conv, norm), *rest), model.preprocess, model.labels)
    for k in range(3):
        found, wanted = (lrp(m, x, ClassScore(k), composite) for m in (model, folded))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_channels_last_changes_nothing():
    """Pooling to one place is recorded in another way for that order of memory."""
    model, x = made(lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3)))  # fmt: skip
    last = Classifier(
        model.net.to(memory_format=torch.channels_last), model.preprocess, model.labels, channels_last=True
    )
    found, wanted = (lrp(m, x, ClassScore(1), "epsilon-plus-flat") for m in (last, model))
    torch.testing.assert_close(found, wanted)


@every_composite
def test_large_weights_are_taken_in_blocks(composite, monkeypatch):
    model, x = made(NETS["biases"][2])
    whole = lrp(model, x, ClassScore([0, 1, 2]), composite)
    monkeypatch.setattr(_relevance, "BLOCK", 100)  # of 48 x 9 weights, two outputs at once; of 9 x 3, all
    torch.testing.assert_close(lrp(model, x, ClassScore([0, 1, 2]), composite), whole, rtol=1e-4, atol=1e-6)


def test_no_more_pictures_go_back_together_than_memory_holds(monkeypatch):
    """The values of every operation are kept on the way, and some more of the size of the one at work."""
    model, x = made(NETS["biases"][2])
    at_once: list[int] = []
    back_to = _relevance.back_to

    def watched(walk):
        at_once.append(walk.pictures)
        return back_to(walk)

    monkeypatch.setattr(_relevance, "back_to", watched)
    every = explain(model, x, "lrp", ClassScore([0, 1, 2]))
    assert at_once == [3]
    # 4 x 7 x 8 values before and after a ReLU, a fourth of each after pooling, few others; 8 bytes each
    held = 8 * 4 * 7 * 8 * (2 + 0.25 + 0.25 + _relevance.WORK)
    monkeypatch.setattr("clearsight.internals.graph.BYTES", int(2.2 * held))
    some = explain(model, x, "lrp", ClassScore([0, 1, 2]))
    assert at_once[1:] == [2, 1]
    assert some.backwards == every.backwards == 1
    torch.testing.assert_close(some.maps, every.maps)
    for name, values in every.receipts.items():
        torch.testing.assert_close(some.receipts[name], values)


def test_weights_may_be_multiplied():
    """addmm adds a multiple of a product to a multiple of something."""
    twice = Run(lambda s, x: torch.addmm(s.b.bias, x.flatten(1), s.b.weight.T, beta=3, alpha=2), b=nn.Linear(12, 3))
    model, x = made(lambda: twice, (2, 3))
    once = Run(lambda s, x: s.b(x.flatten(1)), b=nn.Linear(12, 3)).double().eval().requires_grad_(False)
    once.b.weight.data, once.b.bias.data = 2 * twice.b.weight.data, 3 * twice.b.bias.data
    other = Classifier(once, model.preprocess, model.labels)
    for composite in COMPOSITES:
        found, wanted = (lrp(m, x, ClassScore(1), composite) for m in (model, other))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_gate_gets_nothing():
    """Where the signal takes all, a gate is as good as a constant."""
    model, x = built("squeeze and excitation")
    net = model.net
    for i in range(3):
        h = F.hardswish(net.a(model.normalised(x[i : i + 1]).double()))
        gate = net.c(F.silu(net.b(h.mean((2, 3), keepdim=True)))).sigmoid().detach()
        frozen = Run(lambda s, x, g=gate: s.d((F.hardswish(s.a(x)) * g).mean((2, 3))), a=net.a, d=net.d)
        fixed = Classifier(frozen, model.preprocess, model.labels)
        for composite in ("epsilon-plus-flat", "epsilon"):
            found, wanted = (lrp(m, x[i : i + 1], ClassScore(2), composite) for m in (model, fixed))
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@every_composite
def test_other_targets_are_made_of_classes(composite):
    """The way back is linear in what it starts with: a margin is a difference, a probability a weighted sum."""
    model, x = made(bent, (5, 6))
    maps = torch.stack([lrp(model, x, ClassScore(k), composite) for k in range(3)])
    margin = lrp(model, x, Margin(0, 2), composite)
    scale = float(maps.abs().max())
    torch.testing.assert_close(margin / scale, (maps[0] - maps[2]) / scale, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        p = model(x).softmax(1).float()
    weights = p[:, 1:2] * (torch.tensor([0.0, 1.0, 0.0]) - p)  # d p1 / d logits
    wanted = torch.einsum("bk,kbhw->bhw", weights, maps)
    found = lrp(model, x, ClassScore(1, of="prob"), composite)
    torch.testing.assert_close(found / scale, wanted / scale, rtol=1e-3, atol=1e-5)


def test_called_by_itself_it_notes_its_receipts():
    model, x = built("silu")
    with diagnostics.collected() as book, model.undisturbed():
        catalogue("explainers")["lrp"](model, x, ClassScore(0))
    assert list(book) == ["conservation residual", "kept by biases"]
    assert all(v.shape == (3,) for values in book.values() for v in values)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_rule_that_loses_relevance_is_refused(monkeypatch):
    model, x = built("biases")
    whole = _relevance.positive

    def leaky(op, r):
        share, handed = whole(op, r)
        return share * torch.linspace(0.9, 1, share.shape[-1]), handed

    monkeypatch.setattr(_relevance, "positive", leaky)
    with pytest.raises(Refused, match="relevance was lost"):
        lrp(model, x, ClassScore(0), "plus")

    def nothing(op, r):
        return torch.full_like(op.x, torch.nan), r

    monkeypatch.setattr(_relevance, "positive", nothing)
    with pytest.raises(Refused, match="relevance was lost"):
        lrp(model, x, ClassScore(0), "plus")


def test_attention_is_refused():
    with torch.random.fork_rng():
        net = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=3, depth=1, img_size=32)
    model = Classifier(net.eval(), Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3), tuple("abc"))
    with pytest.raises(Refused, match=r"no rule for 'bmm'.*use a gradient"):
        explain(model, torch.rand(1, 3, 32, 32), "lrp", ClassScore(0))


def test_what_has_no_rule_is_refused_by_name():
    conv = {"a": nn.Conv2d(2, 3, 3), "b": nn.Conv2d(2, 3, 3)}
    for forward, words in (
        (lambda s, x: s.a(x).softmax(1).mean((2, 3)), "_softmax"),
        (lambda s, x: (s.a(x) * s.b(x)).mean((2, 3)), "product of two signals"),
        (lambda s, x: s.a(x).cos().mean((2, 3)), "'cos'"),
        (lambda s, x: F.conv2d(s.a(x), s.b(x)[:1]).flatten(1).expand(-1, 3), "'convolution'"),
        (
            lambda s, x: F.conv2d(torch.ones(1, 3, 7, 8).double(), s.b(x)[:1]).flatten(1).expand(len(x), 3),
            "whose weights",
        ),
    ):
        model, x = made(lambda f=forward: Run(f, **conv))
        with pytest.raises(Refused, match=words):
            lrp(model, x[:1], ClassScore(0), "epsilon-plus-flat")


def test_nonsense_options_are_refused():
    model = linear([[1.0, 2.0], [0.0, 1.0]])
    for options in ("epsilon=-1", "gamma=-0.1", "alpha=0.5"):
        with pytest.raises(Refused, match="not negative"):
            explain(model, torch.rand(1, 1, 1, 2), f"lrp({options})", ClassScore(0))
