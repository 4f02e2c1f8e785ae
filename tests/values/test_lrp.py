"""The numbers of layer-wise relevance propagation: by hand, by a slow replica of its rules, and by their sum."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clearsight.core import diagnostics
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.explainers.common import lrp_rules, lrp_walk
from clearsight.runner.run import explain
from clearsight.testing import linear
from relevancenets import NETS, Run, bent, built, made, rule, stages, way_back

COMPOSITES = (
    "epsilon-plus-flat", "epsilon-plus-box", "epsilon-alpha-beta-flat", "epsilon-alpha-beta-box", "epsilon-gamma-box",
    "epsilon", "gamma", "alpha-beta", "plus", "flat",
)  # fmt: skip
every_composite = pytest.mark.parametrize("composite", COMPOSITES)


def lrp(model: Classifier, x: Tensor, target, composite: str, **options) -> Tensor:
    words = ", ".join(f"{k}={v}" for k, v in {"composite": composite, **options}.items())
    return explain(model, x, f"lrp({words})", target).maps


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
        assert e.diagnostics["kept by biases"].item() == pytest.approx(kept, abs=1e-5)
    e = explain(model, PIXELS, "lrp(composite=epsilon)", ClassScore(1))  # the logit is -1: the bias has -1 of it
    assert e.diagnostics["kept by biases"].item() == pytest.approx(-1, abs=1e-5)


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
        (g,) = torch.autograd.grad(model.from_normalised(z)[:, k].sum(), z)
        found = lrp(model, x, ClassScore(k), "epsilon", epsilon=1e-9)
        torch.testing.assert_close(found, (g * z).sum(1).detach(), rtol=1e-4, atol=1e-5)


# --- by a slow replica ------------------------------------------------------------------------------------------------


def replica(model: Classifier, picture: Tensor, k: int, composite: str) -> np.ndarray:
    """The map of one picture (C, H, W), rule by rule."""
    words = [w for w in composite.split("-") if w != "beta"]
    first, conv, dense = ((words[2], words[1], words[0]) if len(words) == 3 else words * 3)  # fmt: skip
    at = stages(model, picture)
    start = np.where(np.arange(3) == k, at["logits"], 0)
    return way_back(at, start, rule(first), rule(conv), rule(dense), by_sign=composite != "epsilon")[0]


@every_composite
def test_a_slow_replica_of_the_rules(composite):
    model, x = made(bent, (5, 6))
    found = lrp(model, x, ClassScore([0, 1, 2]), composite, epsilon=0.01, gamma=0.4, alpha=1.5)
    wanted = np.stack([replica(model, picture, k, composite) for k, picture in enumerate(x)])
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found.numpy() / scale, wanted / scale, rtol=1e-3, atol=2e-4)


# --- by the sum -------------------------------------------------------------------------------------------------------


@every_composite
@pytest.mark.parametrize("name", NETS)
def test_map_and_what_biases_keep_are_the_logit(name, composite):
    model, x = built(name)
    classes = torch.tensor([0, 1, 2])
    e = explain(model, x, f"lrp(composite={composite})", ClassScore(classes))
    with torch.no_grad():
        logit = model(x).gather(1, classes[:, None])[:, 0].float()
    mass = torch.maximum(logit.abs(), e.maps.flatten(1).abs().sum(1))
    sums = e.maps.flatten(1).sum(1) + e.diagnostics["kept by biases"] * logit
    assert ((sums - logit) / mass).abs().max() < 1e-4
    assert e.diagnostics["conservation residual"].abs().max() < 1e-4
    assert e.maps.abs().amax() > 1e-3


def test_where_nothing_is_kept_the_map_is_the_logit():
    model, x = made(NETS["biases"][2], bias=False)
    with torch.no_grad():
        logit = model(x)[:, 1]
    for composite in ("epsilon-plus-flat", "flat", "plus", "epsilon-gamma-box"):
        e = explain(model, x, f"lrp(composite={composite})", ClassScore(1))
        torch.testing.assert_close(e.maps.flatten(1).sum(1), logit.float(), rtol=1e-3, atol=1e-4)
        assert e.diagnostics["kept by biases"].abs().max() < 1e-3


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
    monkeypatch.setattr(lrp_walk, "BLOCK", 100)  # of 48 x 9 weights, two outputs at once; of 9 x 3, all
    torch.testing.assert_close(lrp(model, x, ClassScore([0, 1, 2]), composite), whole, rtol=1e-4, atol=1e-6)


def test_no_more_pictures_go_back_together_than_memory_holds(monkeypatch):
    """The values of every operation are kept on the way, and some more of the size of the one at work."""
    model, x = made(NETS["biases"][2])
    at_once: list[int] = []
    back_to = lrp_walk.back_to

    def watched(walk):
        at_once.append(walk.pictures)
        return back_to(walk)

    monkeypatch.setattr(lrp_walk, "back_to", watched)
    every = explain(model, x, "lrp", ClassScore([0, 1, 2]))
    assert at_once == [3]
    # 4 x 7 x 8 values before and after a ReLU, a fourth of each after pooling, few others; 8 bytes each
    held = 8 * 4 * 7 * 8 * (2 + 0.25 + 0.25 + lrp_walk.WORK)
    monkeypatch.setattr("clearsight.internals.graph.BYTES", int(2.2 * held))
    some = explain(model, x, "lrp", ClassScore([0, 1, 2]))
    assert at_once[1:] == [2, 1]
    assert some.backwards == every.backwards == 1
    torch.testing.assert_close(some.maps, every.maps)
    for name, values in every.diagnostics.items():
        torch.testing.assert_close(some.diagnostics[name], values)


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


@pytest.mark.parametrize(("axes", "keepdim"), [(None, False), ([-1, -2], False), ([2, 3], True), ([1], False)])
def test_a_mean_is_gone_back_through_as_autograd_does(axes, keepdim):
    x = torch.rand(2, 3, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = x.mean() if axes is None else x.mean(axes, keepdim)
    s = torch.rand(out.shape)
    (wanted,) = torch.autograd.grad(out, x, s)
    assert torch.equal(lrp_walk.back_through_mean(s, x.detach(), axes, keepdim), wanted)


def test_called_by_itself_it_notes_its_diagnostics():
    model, x = built("silu")
    with diagnostics.collected() as book, model.undisturbed():
        catalogue("explainers")["lrp"](model, x, ClassScore(0))
    assert list(book) == ["conservation residual", "kept by biases"]
    assert all(v.shape == (3,) for values in book.values() for v in values)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_rule_that_loses_relevance_is_refused(monkeypatch):
    model, x = built("biases")
    whole = lrp_rules.positive

    def leaky(op, r):
        share, kept = whole(op, r)
        return share * torch.linspace(0.9, 1, share.shape[-1]), kept

    monkeypatch.setattr("clearsight.explainers.lrp.positive", leaky)
    with pytest.raises(Refused, match="% of the relevance"):
        lrp(model, x, ClassScore(0), "plus")

    def nothing(op, r):
        return torch.full_like(op.x, torch.nan), torch.zeros(len(r))

    monkeypatch.setattr("clearsight.explainers.lrp.positive", nothing)
    with pytest.raises(Refused, match="% of the relevance"):
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
        with pytest.raises(Refused, match="must be at least 0, alpha at least 1"):
            explain(model, torch.rand(1, 1, 1, 2), f"lrp({options})", ClassScore(0))
