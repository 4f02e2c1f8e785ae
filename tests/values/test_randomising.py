"""Networks that keep their weights when these are drawn anew: random as their plain twin is, or refused by name."""

import copy
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.map_tests import examine
from clearsight.core.classifier import Classifier
from clearsight.core.copying import copied, plain
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.data.datasets import folder
from clearsight.errors import Refused
from clearsight.internals.randomisation import again_from, fresh, reinitialise, unlearnt, uses
from clearsight.runner.run import explain, measure

SIDE = 8
Change = Callable[[nn.Module], nn.Module]


class Plain(nn.Module):
    """Convolution, ReLU, dense: the twin of all that compute the same weights in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(2, 6, 3, padding=1), nn.Linear(6 * SIDE * SIDE, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.first(x).relu().flatten(1))
        return out


def built(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def model(net: nn.Module, channels: int = 2, classes: int = 3) -> Classifier:
    return Classifier(
        net, Preprocess(SIDE, (0.5,) * channels, (0.25,) * channels), tuple(map(str, range(classes))), "net"
    )


def pictures(n: int = 3, channels: int = 2) -> Tensor:
    return torch.rand(n, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def old_weight_norm(m: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(m)


class Tilted(nn.Module):
    """A parametrization of the user's own."""

    def forward(self, w: Tensor) -> Tensor:
        return w + 0.1 * w.flip(0)


def tilted(m: nn.Module) -> nn.Module:
    nn.utils.parametrize.register_parametrization(m, "weight", Tilted())
    return m


def pruned(m: nn.Module) -> nn.Module:
    prune.l1_unstructured(m, "weight", 0.3)
    return m


NORMS: dict[str, Change] = {
    "old weight_norm": old_weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "one's own": tilted,
    "pruned": pruned,
}


def normed(change: Change) -> tuple[Classifier, Classifier]:
    """A network whose layers compute their weights, and its twin with the same weights as plain ones."""
    net = built(Plain)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net.first, net.head = change(net.first), change(net.head)
    net.eval()
    x = pictures(2)
    net(x)  # old hooks compute their weight in a pass
    twin = built(Plain)
    with torch.no_grad():
        for name in ("first", "head"):
            twin.get_submodule(name).weight.copy_(net.get_submodule(name).weight)
            twin.get_submodule(name).bias.copy_(net.get_submodule(name).bias)
        torch.testing.assert_close(twin(x), net(x))
    return model(net), model(twin)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_a_plain_copy_has_the_weights_that_the_layers_use(name, training):
    m, twin = normed(NORMS[name])
    m.net.train(training)
    state = {k: v.clone() for k, v in m.net.state_dict().items()}
    found = plain(m.net)
    assert m.net.training is training
    m.net.eval()
    assert {n for n, _ in found.named_parameters()} == {n for n, _ in twin.net.named_parameters()}
    assert not list(found.buffers())
    torch.testing.assert_close(dict(found.named_parameters()), dict(twin.net.named_parameters()))
    with torch.no_grad():
        found.head.weight.zero_()
        torch.testing.assert_close(found(pictures()), found.head.bias.expand(3, -1))  # no hook writes it again
    assert all(torch.equal(v, state[k]) for k, v in m.net.state_dict().items())
    torch.testing.assert_close(m.net(pictures()), twin.net(pictures()))  # the user's own is as it was


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("name", NORMS)
def test_a_normed_network_is_randomised_as_its_plain_twin(name, order, training):
    m, twin = normed(NORMS[name])
    m.net.train(training)
    x, call = pictures(), f"parameter-randomisation(stages=2, order={order})"
    maps = explain(twin, x, "gradient-x-input", ClassScore(1)).maps
    torch.testing.assert_close(explain(m, x, "gradient-x-input", ClassScore(1)).maps, maps)
    state = {k: v.clone() for k, v in m.net.state_dict().items()}
    found, wanted = (measure(t, x, maps, call, ClassScore(1), method="gradient-x-input", seed=4) for t in (m, twin))
    torch.testing.assert_close(found, wanted)
    assert all(torch.equal(v, state[k]) for k, v in m.net.state_dict().items())
    assert m.net.training is training


def test_a_linear_network_under_weight_norm_by_hand():
    """Gradient times input of a linear layer is weight times pixel: of the drawn weight, for the random map."""

    def head() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))

    net = built(head)
    net[1] = old_weight_norm(net[1])
    m, x = model(net, 1, 2), pictures(3, 1)
    maps = explain(m, x, "gradient-x-input", ClassScore(1)).maps
    found = measure(m, x, maps, "parameter-randomisation(stages=1)", ClassScore(1), method="gradient-x-input", seed=9)
    with torch.random.fork_rng():
        torch.manual_seed(fresh(9, 1))
        drawn = nn.Linear(SIDE * SIDE, 2)
    for i, (p, was) in enumerate(zip(x, maps, strict=True)):
        now = (drawn.weight[1].detach().view(SIDE, SIDE) * p[0]).flatten()
        assert float(found[i]) == pytest.approx(abs(spearmanr(was.flatten(), now).statistic), abs=1e-4)
    assert float(found.max()) < 0.4


@pytest.mark.parametrize("training", [False, True])
def test_what_a_hook_computed_can_be_copied(training):
    net = built(Plain)
    net.head = old_weight_norm(net.head)
    net.train(training)
    x = pictures()
    net(x)
    assert not net.head.weight.is_leaf
    with pytest.raises(RuntimeError):
        copy.deepcopy(net)
    other = copied(net)
    torch.testing.assert_close(other(x), net(x))
    with torch.no_grad():
        other.head.weight_g.mul_(3)
    assert not torch.allclose(other(x), net(x))
    assert other.head.weight is not net.head.weight


def test_what_cannot_be_copied_is_refused():
    net = built(Plain)
    net.lock = threading.Lock()
    m, x = model(net), pictures()
    maps = explain(m, x, "saliency", ClassScore(0)).maps
    with pytest.raises(Refused, match=r"cannot be copied \(TypeError: .*outside its modules"):
        measure(m, x, maps, "parameter-randomisation", ClassScore(0), method="saliency")


# --- what a pass uses -------------------------------------------------------------------------------------------------


class Held(nn.Module):
    """A weight in a buffer, and no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.randn(6, 2, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, 2 * self.kernel, padding=1)


class Functional(nn.Module):
    """Weights in functional calls: a parameter of the network itself, a buffer, one that is normalised on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 6))
        self.held = Held()
        self.register_buffer("shift", torch.randn(6))
        self.inner = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(self.held(x).relu())
        return F.linear(h.mean((2, 3)) + self.shift, F.normalize(self.w))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cut, self.mix, self.head = (
            nn.Conv2d(2, 8, 2, 2),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        t = self.cut(x).flatten(2).mT
        out: Tensor = self.head(self.mix(t, t, t)[0].mean(1))
        return out


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.head = nn.LSTM(2 * SIDE, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.read(x.transpose(1, 2).flatten(2))[0][:, -1])
        return out


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.head = nn.Linear(2 * SIDE * SIDE, 8), nn.Linear(8, 2 * SIDE * SIDE), nn.Linear(8, 3)
        self.up.weight = nn.Parameter(torch.randn(2 * SIDE * SIDE, 8) / 8)
        self.down.weight = nn.Parameter(self.up.weight.data.T.contiguous())
        self.again = nn.Linear(2 * SIDE * SIDE, 8)
        self.again.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.again(self.up(self.down(x.flatten(1)).relu()).relu()))
        return out


LAYERS: dict[type[nn.Module], list[str]] = {
    Functional: ["", "inner", "held"],
    Attending: ["head", "mix.out_proj", "mix", "cut"],
    Recurrent: ["head", "read"],
    Tied: ["head", "again", "down", "up"],
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_drawn_from_the_output_to_the_input_and_all_weights_change(kind):
    m, x = model(built(kind)), pictures()
    start = unlearnt(m, x[:1])
    assert start.layers == LAYERS[kind]
    with torch.no_grad():
        logits = m(x)
    taken = again_from(start)
    before = {k: v.clone() for k, v in taken.model.net.state_dict().items()}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        taken.draw(taken.layers)
    assert taken.check(x, logits)
    after = taken.model.net.state_dict()
    kept = {k for k, v in after.items() if torch.equal(v, before[k])}
    assert kept <= {"shift", "mix.in_proj_bias", "mix.out_proj.bias"}  # no weight; biases that are 0
    with torch.no_grad():
        torch.testing.assert_close(m(x), logits)
    maps = explain(m, x, "gradient-x-input", ClassScore(0)).maps
    call = "parameter-randomisation(stages=2)"
    assert (measure(m, x, maps, call, ClassScore(0), method="gradient-x-input") < 0.9).all()


def test_what_a_pass_does_with_the_weights_is_asked_once_and_again_when_they_change(monkeypatch):
    m, x, asked = model(built(Functional)), pictures(1), []
    monkeypatch.setattr("clearsight.internals.randomisation.uses", lambda *args: asked.append(None) or uses(*args))
    first, second = unlearnt(m, x), unlearnt(m, x)
    assert len(asked) == 1
    assert (first.layers, first.before.weights) == (second.layers, second.before.weights)
    with torch.no_grad():
        m.net.held.kernel.mul_(2)
    assert unlearnt(m, x).before.weights != first.before.weights
    assert len(asked) == 2


def test_uses_of_a_pass():
    m = model(built(Functional))
    found = uses(m, pictures(1))
    assert found.buffers == {("held", "kernel")}
    assert found.last[""] > found.last["inner"]
    net = m.net
    for name, weight in (("held", 2 * net.held.kernel), ("", F.normalize(net.w))):
        ((told, _),) = found.weights[name]
        assert told == pytest.approx(float(weight.detach().double().sum()), rel=1e-5)


def test_a_reset_that_leaves_a_weight_is_made_up_for():
    class Stubborn(nn.Linear):
        def reset_parameters(self) -> None:
            with torch.no_grad():
                self.weight.fill_(0.5)
                self.bias.fill_(0.0)

    stubborn = Stubborn(4, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reinitialise(stubborn)
    assert float(stubborn.weight.detach().std()) > 0.1

    class Needs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1600))

        def reset_parameters(self, gain: float) -> None:
            raise AssertionError(gain)

    needs = Needs()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reinitialise(needs)
    assert float(needs.weight.detach().std()) == pytest.approx(1, rel=0.1)


# --- what is refused --------------------------------------------------------------------------------------------------


def put_back(layer: nn.Linear) -> None:
    kept = layer.weight.detach().clone()

    def hook(m: nn.Module, _inputs: object) -> None:
        m.weight.data.copy_(kept)

    layer.register_forward_pre_hook(hook)


class PutsBack(Plain):
    """A hook of its own writes the trained weight before every pass."""

    def __init__(self) -> None:
        super().__init__()
        put_back(self.head)


class Deaf(Plain):
    """Its scores are those of the first layer's sign alone, which no weight of the head changes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0 + x.mean((1, 2, 3))[:, None] * torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (PutsBack, "layer head uses the same weights after they were drawn anew"),
        (Deaf, "3 of 3 pictures do not change"),
    ],
)
def test_networks_that_stay_the_same_are_refused(kind, words, tmp_path):
    m, x = model(built(kind)), pictures()
    maps = explain(m, x, "gradient-x-input", ClassScore(0)).maps
    for order in ("cascading", "independent"):
        call = f"parameter-randomisation(order={order})"
        with pytest.raises(Refused, match=words):
            measure(m, x, maps, call, ClassScore(0), method="gradient-x-input")
    for told in examine(m, [explain(m, x, "gradient-x-input", ClassScore(0))])[0]:
        assert told.kept is None
        assert any(
            line.startswith("not tested: with a random network: ") and words[8:] in line for line in told.lines()
        )


def test_one_picture_whose_scores_stay_is_enough_to_refuse():
    class Half(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x[:, :1, 0, 0] > 0, super().forward(x), torch.ones(len(x), 3))

    m, x = model(built(Half)), pictures()
    x[1, 0, 0, 0] = 0.1
    x[[0, 2], 0, 0, 0] = 0.9
    maps = torch.rand(3, SIDE, SIDE)
    with pytest.raises(Refused, match="the scores of 1 of 3 pictures do not change"):
        measure(m, x, maps, "parameter-randomisation(stages=1)", ClassScore(0), method="edge")


@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_are_refused():
    net = torch.ao.quantization.quantize_dynamic(built(Plain), {nn.Linear}, dtype=torch.qint8)
    m, x = model(net), pictures()
    with pytest.raises(Refused, match=r"quantised weights \(layer head\), which cannot be drawn anew"):
        unlearnt(m, x[:1])
    with pytest.raises(Refused, match="head is quantised by the range of the whole batch"):
        measure(m, x, torch.rand(3, SIDE, SIDE), "parameter-randomisation", ClassScore(0), method="edge")
    found = explain(m, x, "edge", ClassScore(0))
    assert any("quantised weights" in w for w in examine(m, [found])[0][0].left_out)


@pytest.mark.filterwarnings("ignore")
def test_quantised_operations_are_refused():
    weight = torch.quantize_per_tensor(torch.randn(3, 2 * SIDE * SIDE), 0.05, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)

    class Quick(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = torch.ops.quantized.linear_dynamic(x.flatten(1), packed)
            return out

    with pytest.raises(Refused, match=r"quantised weights \(the operation linear_dynamic\)"):
        uses(model(Quick()), pictures(1))


def test_layers_that_nobody_trained_say_nothing():
    class Late(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(super().forward(x))
            return out

    m, x = model(built(Late)), pictures()
    maps = explain(m, x, "gradient-x-input", ClassScore(0)).maps
    told = {"method": "gradient-x-input", "seed": 2}
    assert unlearnt(m, x[:1]).layers == ["norm", "head", "first"]
    found = measure(m, x, maps, "parameter-randomisation(stages=2)", ClassScore(0), **told)  # norm, then all
    taken = again_from(unlearnt(m, x[:1]))
    with torch.random.fork_rng():
        torch.manual_seed(fresh(2, 3))
        taken.draw(["head", "first"])
    after = explain(taken.model, x, "gradient-x-input", ClassScore(0)).maps
    wanted = [abs(spearmanr(a.flatten(), b.flatten()).statistic) for a, b in zip(maps, after, strict=True)]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    bare = model(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(2)), classes=2)
    with pytest.raises(Refused, match="no layer of this network changes the scores"):
        measure(bare, x, maps, "parameter-randomisation", ClassScore(0), method="edge")


# --- the check --------------------------------------------------------------------------------------------------------


def case(m: Classifier, at: Path) -> Case:
    rng = np.random.default_rng(0)
    for i in range(4):
        (at / "0").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(at / "0" / f"{i}.png")
    return Case(m, folder(at), method="gradient-x-input")


class Coloured(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)


def test_sanity_says_of_a_normed_network_what_it_says_of_its_twin(tmp_path):
    twin = model(built(Coloured), 3)
    net = copy.deepcopy(twin.net)
    net.first, net.head = old_weight_norm(net.first), old_weight_norm(net.head)
    found, wanted = (
        next(run_checks(case(m, tmp_path), parse_checks("sanity(stages=2)"))) for m in (model(net, 3), twin)
    )
    assert found.value == pytest.approx(wanted.value, abs=1e-4)
    assert found.value < 0.5
    puts = model(built(Coloured), 3)
    put_back(puts.net.head)
    (told,) = run_checks(case(puts, tmp_path), parse_checks("sanity(stages=2)"))
    assert told.value is None
    assert "layer head uses the same weights" in told.headline
