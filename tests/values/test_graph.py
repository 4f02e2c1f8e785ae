"""The recorded network gives what the network gives, whatever Python did in between; the rest is refused by name."""

import copy
import gc
import weakref
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import SqueezeExcitation

from clearsight.core import passes
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused
from clearsight.internals import recording
from clearsight.internals.graph import word
from clearsight.internals.pointwise import is_pointwise
from clearsight.internals.recording import graph_of
from relevancenets import Run


def wrapped(net: nn.Module, **options) -> Classifier:
    """The network with random values in its BatchNorms too."""
    for name, p in net.named_parameters():
        if p.dim() == 1:
            p.data = 0.3 * torch.randn_like(p) + (1 if name.endswith("weight") else 0)
    for name, b in net.named_buffers():
        if b.is_floating_point():
            b.copy_(torch.rand_like(b) + 0.5 if "var" in name else 0.2 * torch.randn_like(b))
    return Classifier(net, Preprocess((8, 12), (0.5, 0.4), (0.25, 0.5)), tuple("abc"), "net", **options)


def conv(i: int = 2, o: int = 4, k: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


def in_place(s, x):
    h = F.relu(s.a(x), inplace=True)
    z = s.b(h)
    z += h
    h = s.relu(s.b(s.relu(z))) + 0.1  # eager PyTorch could not go back where the output of a ReLU is written over
    h[:, 0] = h[:, 1] * 2
    h[:, 2:].mul_(0.5)
    return {"features": h, "scores": s.d(h.mean((2, 3)))}


def each_in_place(s, x):
    h = F.relu6(s.a(x) + 1, inplace=True) + 0  # eager PyTorch could not go back where an output is written over
    h = torch.relu_(h) + 0
    h.clamp_(0.1, 4)
    h **= 2
    rows = h.view(len(h), -1)
    rows.add_(h.mean())  # a view: h itself changes
    F.dropout(rows, 0.5, False, inplace=True)
    F.selu(rows[:, ::2], inplace=True)
    h = h + 0
    kept = h.masked_fill_(h > 3, 0.5)
    h = F.hardswish(h - 1, True) + torch._C._nn.hardtanh_(kept * 1.0, -1.0, 2.0)
    h.t_().t_() if h.dim() == 2 else h.transpose_(2, 3)
    return s.d(h.mean((2, 3)))


def tokens(s, x):
    h = s.a(x).flatten(2).transpose(1, 2)
    return s.d(s.layer(h).mean(1))


def shuffle(s, x):
    h = s.a(x)
    b, c, height, width = h.shape
    h = h.view(b, 2, c // 2, height, width).transpose(1, 2).reshape(b, c, height, width)
    return s.d(h.relu().flatten(1).view(b, c, -1).amax(2))


def windows(s, x):
    h = s.a(x).relu()
    b, c, height, width = h.shape
    h = h.view(b, c, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
    h = s.e(h) + torch.arange(b * 6 * 16, device=x.device).view(-1, 16, 1).remainder(16) / 16
    return s.d(h.view(b, 6, 16, c).mean((1, 2)))


def two_readers(s, x):
    h = s.a(x)
    return s.d((s.n(h).relu() + h).mean((2, 3)))


NETS = {
    "in place, reused, functional": (
        lambda: Run(in_place, a=conv(), b=conv(4), relu=nn.ReLU(inplace=True), d=nn.Linear(4, 3)),
        {"output": "scores"},
    ),
    "in place, number by number": (lambda: Run(each_in_place, a=conv(), d=nn.Linear(4, 3)), {}),
    "a layer of a transformer": (
        lambda: Run(tokens, a=conv(), layer=nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), d=nn.Linear(4, 3)),
        {},
    ),
    "a tuple": (lambda: Run(lambda s, x: (x, s.a(x).mean((2, 3))), a=conv(2, 3)), {"output": 1}),
    "shuffle": (lambda: Run(shuffle, a=conv(), d=nn.Linear(4, 3)), {}),
    "windows": (lambda: Run(windows, a=conv(), e=nn.Linear(4, 4), d=nn.Linear(4, 3)), {}),
    "batch norm": (
        lambda: nn.Sequential(
            conv(bias=False), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4, groups=2), nn.BatchNorm2d(4, affine=False),
            nn.Flatten(), nn.Linear(384, 3),
        ),
        {},
    ),
    "batch norm after other things": (
        lambda: nn.Sequential(
            nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3),
        ),
        {},
    ),
    "a convolution with two readers": (
        lambda: Run(two_readers, a=conv(), n=nn.BatchNorm2d(4), d=nn.Linear(4, 3)), {},
    ),
    "statistics of the picture": (
        lambda: nn.Sequential(
            conv(), nn.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(4), nn.GELU(), nn.GroupNorm(2, 4),
            nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten(), nn.Linear(384, 3),
        ),
        {},
    ),
    "probabilities": (
        lambda: nn.Sequential(conv(), nn.Flatten(), nn.Dropout(), nn.Linear(384, 3), nn.Softmax(1)),
        {"scores": "probabilities"},
    ),
    "squeeze and excitation": (
        lambda: nn.Sequential(conv(), SqueezeExcitation(4, 2), nn.Flatten(), nn.Linear(384, 3)), {},
    ),
    "attention": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, num_classes=3, depth=1, img_size=(8, 12), patch_size=4, in_chans=2
        ),
        {},
    ),
    "channels last": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                              nn.Linear(4, 3)).to(memory_format=torch.channels_last),
        {"channels_last": True},
    ),
    "double": (lambda: nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(384, 3)).double(), {}),
}  # fmt: skip
every_net = pytest.mark.parametrize("name", NETS)


def build(name: str) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make, options = NETS[name]
        return wrapped(make(), **options)


def pictures(n: int) -> Tensor:
    return torch.rand(n, 2, 8, 12, generator=torch.Generator().manual_seed(n))


@every_net
def test_what_is_recorded_is_the_network(name):
    model = build(name)
    with model.undisturbed(), torch.no_grad():
        for fold in (True, False):
            for n in (5, 1, 2, 3):
                x = pictures(n)
                g = graph_of(model, x[:1], fold=fold)
                torch.testing.assert_close(g(model.normalised(x)), model(x), rtol=1e-4, atol=1e-5)


@every_net
def test_gradients_flow_through_what_is_recorded(name):
    model = build(name)
    weight = torch.tensor([1.0, -2.0, 0.5])
    with model.undisturbed():
        found, wanted = (model.normalised(pictures(3)).requires_grad_() for _ in range(2))
        (graph_of(model, pictures(1))(found) @ weight).sum().backward()
        (model.from_normalised(wanted) @ weight).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-5)


def test_every_value_is_there_and_what_follows_given_ones_can_be_run():
    model, x = build("batch norm"), pictures(2)
    with model.undisturbed(), torch.no_grad():
        g = graph_of(model, x[:1])
        values = g.values(model.normalised(x))
        assert all(n in values for n in g.nodes)
        relu = next(n for n in g.nodes if word(n) == "relu")
        assert torch.equal(values[relu], values[relu.args[0]].relu())
        after = g.nodes[g.nodes.index(relu) + 1 :]
        zero = torch.zeros_like(values[relu])
        every = g.follow(after, {relu: zero}, 2)
        last = g.follow(after, {relu: zero}, 2, wanted={g.end})
        assert set(every) == {relu, *after}
        assert set(last) == {g.end}
        assert torch.equal(every[g.end], last[g.end])
        assert not torch.equal(last[g.end], values[g.end])
        assert torch.equal(g.follow(after, {relu: values[relu]}, 2)[g.end], values[g.end])
        signs = g(model.normalised(x), rules={"relu": lambda _g, node, args, _k: node.target(-args[0])})
        assert not torch.equal(signs, values[g.end])


def test_how_many_pictures_fit_is_counted_in_bytes(monkeypatch):
    """A view of a value takes nothing more; what is at work counts where it is largest."""
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 8, 3))
    model = Classifier(net.eval().requires_grad_(False), Preprocess((7, 8), (0.5,) * 2, (0.5,) * 2), ("a", "b", "c"))
    x = torch.rand(1, 2, 7, 8)
    conv = 4 * 4 * 7 * 8
    with model.undisturbed():
        for work, copies, most in ((5, 1, 2 * conv + 5 * conv), (0, 3, 3 * (2 * conv + 4 * 3))):
            for fit in (2, 7):
                g = graph_of(model, x)
                monkeypatch.setattr("clearsight.internals.graph.BYTES", fit * most)
                assert g.at_once(x, work, copies) == fit
                monkeypatch.setattr("clearsight.internals.graph.BYTES", fit * most - 1)
                assert g.at_once(x, work, copies) == fit - 1
        monkeypatch.setattr("clearsight.internals.graph.BYTES", 1)
        assert graph_of(model, x).at_once(x, 0) == 1


def test_where_batch_norm_goes():
    def words(name: str, **options) -> list[str]:
        model = build(name)
        with model.undisturbed():
            return [word(n) for n in graph_of(model, pictures(1), **options).nodes]

    assert "affine" not in words("batch norm")
    assert not any("norm" in w for w in words("batch norm"))
    assert any("batch_norm" in w for w in words("batch norm", fold=False))
    assert words("a convolution with two readers").count("affine") == 1
    assert words("batch norm after other things").count("affine") == 4
    assert "native_batch_norm" in words("statistics of the picture")
    model = build("batch norm")
    with model.undisturbed():  # what comes before a BatchNorm is not what it was once that is folded in
        assert "affine" in [word(n) for n in graph_of(model, pictures(1), "0").nodes]


@every_net
def test_a_marked_layer_is_what_the_layer_gives(name):
    model, x = build(name), pictures(3)
    layer = next(n for n, m in model.net.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    caught: list[Tensor] = []
    with model.undisturbed(), torch.no_grad():
        handle = model.net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: caught.append(out.clone()))
        model(x)
        handle.remove()
        g = graph_of(model, x[:1], layer)
        found = g.values(model.normalised(x))[g.marked]
        torch.testing.assert_close(found, caught[0], rtol=1e-4, atol=1e-5)
        assert graph_of(model, x[:1]).marked is None


def test_layers_that_cannot_be_marked():
    model = build("in place, reused, functional")
    with model.undisturbed(), pytest.raises(Refused, match="runs more than once"):
        graph_of(model, pictures(1), "b")
    inner = Run(lambda s, x: (s.a(x), x), a=conv())
    model = wrapped(Run(lambda s, x: s.inner(x)[0].mean((2, 3))[:, :3], inner=inner))
    with model.undisturbed(), pytest.raises(Refused, match="inner gives a tuple"):
        graph_of(model, pictures(1), "inner")


class Again(nn.Module):
    """How often its layer is run is an attribute that is not in the way it is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.times = conv(2, 2), [1]

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times[0]):
            x = self.layer(x)
        return F.pad(x.mean((2, 3)), (0, 1))


def test_a_layer_that_is_run_more_often_than_when_it_was_looked_at_is_not_marked():
    net = Again()
    model, x = wrapped(net), pictures(1)
    with model.undisturbed():
        assert graph_of(model, x, "layer").marked is not None
        net.times[0] = 2
        with pytest.raises(Refused, match="runs more than once"):
            graph_of(model, x, "layer")


# --- what is kept from one call to the next ---------------------------------------------------------------------------


def changed_softly(p: Tensor) -> None:
    with torch.no_grad():
        p.mul_(1.0001)  # less than the comparison with the network could see


def changed_behind_the_back(p: Tensor) -> None:
    p.data = p.data * 1.5


def changed_in_place_behind_the_back(p: Tensor) -> None:
    p.data.mul_(1.5)


@pytest.mark.parametrize("change", [changed_softly, changed_behind_the_back, changed_in_place_behind_the_back])
@pytest.mark.parametrize("which", ["0.weight", "1.weight", "1.running_var", "6.bias"])
def test_changed_weights_are_seen(change, which):
    model, x = build("batch norm"), pictures(4)
    with model.undisturbed():
        graph_of(model, x[:1])
    change(dict(model.net.named_parameters()).get(which, dict(model.net.named_buffers()).get(which)))
    with model.undisturbed(), torch.no_grad():
        g = graph_of(model, x[:1])
        torch.testing.assert_close(g(model.normalised(x)), model(x), rtol=1e-6, atol=1e-6)


@pytest.fixture
def recorded(monkeypatch) -> list[int]:
    """Grows by one with every recording that is made."""
    made: list[int] = []
    record = recording.record
    monkeypatch.setattr(recording, "record", lambda *a, **k: made.append(1) or record(*a, **k))
    monkeypatch.setattr(recording, "recordings", OrderedDict())
    return made


def test_a_second_network_of_the_same_kind_is_not_recorded(recorded, monkeypatch):
    """Nor written down: with other weights, it only runs once, and once by its graph."""
    x, taped = pictures(4), []
    one, two = build("batch norm"), build("batch norm")
    with torch.no_grad():
        for p in two.net.parameters():
            p.mul_(1.5)
    with one.undisturbed():
        first = graph_of(one, x[:1])
    monkeypatch.setattr(recording, "tape_of", lambda *a: taped.append(a))
    with two.undisturbed(), torch.no_grad():
        second = graph_of(two, x[:1])
        torch.testing.assert_close(second(two.normalised(x)), two(x), rtol=1e-6, atol=1e-6)
        assert not torch.allclose(first(two.normalised(x)), two(x))
    assert (len(recorded), taped) == (1, [])


def test_no_garbage_is_looked_for_while_a_run_is_recorded(recorded):
    made: list[bool] = []

    def forward(s, x):
        made.append(gc.isenabled())
        return s.d(s.a(x).mean((2, 3)))

    model = wrapped(Run(forward, a=conv(2, 2), d=nn.Linear(2, 3)))
    with model.undisturbed(), torch.no_grad():
        graph_of(model, pictures(1))
    assert made == [True, False, False]
    assert gc.isenabled()


def test_one_recording_serves_until_something_changes(recorded):
    model, x = build("batch norm"), pictures(4)
    for _ in range(3):
        model.net.train()
        with model.undisturbed():
            first = graph_of(model, x[:1])
    assert len(recorded) == 1
    with model.undisturbed():
        assert graph_of(model, x[1:2]) is first
        assert graph_of(model, x[:1], fold=False) is not first
        assert len(recorded) == 1
        assert graph_of(model, x[:1], "0") is not first
        assert graph_of(model, torch.rand(1, 2, 8, 12)) is first
    assert len(recorded) == 2
    model.net[2] = nn.Tanh()
    with model.undisturbed(), torch.no_grad():
        torch.testing.assert_close(graph_of(model, x[:1])(model.normalised(x)), model(x))
    assert len(recorded) == 3


@every_net
def test_networks_that_differ_in_their_weights_share_a_recording(recorded, name):
    model, x = build(name), pictures(4)
    twin = replace(model, net=copy.deepcopy(model.net))
    with torch.no_grad():
        for p in twin.net.parameters():
            p.mul_(0.8).add_(0.05 * torch.randn_like(p))
    for one in (model, twin):
        with one.undisturbed(), torch.no_grad():
            scale = float(one(x).abs().max())
            torch.testing.assert_close(graph_of(one, x[:1])(one.normalised(x)), one(x), rtol=1e-5, atol=1e-5 * scale)
    assert len(recorded) == 1


class Hidden(nn.Module):
    """A factor that is no parameter: a number, a tensor, or one that is read from a parameter."""

    def __init__(self, factor: float, kind: str) -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(192, 3), kind
        self.factor = factor if kind == "number" else torch.tensor(factor)
        if kind == "read":
            self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * (float(self.factor.item()) if self.kind == "read" else self.factor)


@pytest.mark.parametrize("kind", ["number", "tensor", "read"])
def test_what_is_no_weight_is_recorded_anew(recorded, kind):
    x = pictures(4)
    for factor in (1.0, 1.001, -2.0):
        model = wrapped(Hidden(factor, kind))
        with model.undisturbed(), torch.no_grad():
            torch.testing.assert_close(graph_of(model, x[:1])(model.normalised(x)), model(x))
    assert len(recorded) == 3


def test_what_is_run_without_the_picture_may_be_long(recorded):
    """Each of the constants is read twice by the next two: whoever asks all of them again and again never ends."""

    def forward(s, x):
        a, b = torch.ones(1), torch.ones(1)
        for _ in range(60):
            a, b = (a + b) / 2, a
        return s.a(x).mean((2, 3)) * a

    model, x = wrapped(Run(forward, a=conv(2, 3))), pictures(2)
    with model.undisturbed(), torch.no_grad():
        torch.testing.assert_close(graph_of(model, x[:1])(model.normalised(x)), model(x))


def test_what_was_used_is_let_go_as_the_rest_is_recorded(recorded):
    alive: list[int] = []
    gc.freeze()  # what was there before is not counted

    def forward(s, x):
        for _ in range(9):
            x = s.a(x)
        gc.collect()
        alive.append(sum(isinstance(o, Tensor) for o in gc.get_objects()))
        return s.d(x.mean((2, 3)))

    model = wrapped(Run(forward, a=conv(2, 2), d=nn.Linear(2, 3)))
    with model.undisturbed(), torch.no_grad():
        graph_of(model, pictures(1))
    assert len(alive) > 2
    assert max(alive) - min(alive) < 5


def test_few_recordings_are_kept_and_no_weights_with_them(recorded):
    x = pictures(1)
    held = []
    for width in range(2, 14):
        net = nn.Sequential(nn.Conv2d(2, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(60 * width, 3))
        model = wrapped(net)
        with model.undisturbed(), torch.no_grad():
            model(x)
            graph_of(model, x)
        held.append(weakref.ref(net[0].weight))
    assert len(recorded) == 12
    assert len(recording.recordings) == 8
    del net, model
    gc.collect()
    gc.collect()  # what the network's own entry held is a cycle, which is left over where the network died in the first
    assert not [r for r in held if r() is not None]


def test_another_size_of_picture_is_another_recording():
    net = nn.Sequential(conv(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    model = wrapped(net)
    with model.undisturbed(), torch.no_grad():
        for size in ((8, 12), (9, 7), (8, 12)):
            x = torch.rand(2, 2, *size)
            torch.testing.assert_close(graph_of(model, x[:1])(model.normalised(x)), model(x))


def test_the_users_hooks_stay_and_what_they_change_is_recorded():
    model, x = build("batch norm"), pictures(2)
    with model.undisturbed():
        graph_of(model, x[:1])
    calls: list[int] = []
    model.net[0].register_forward_hook(lambda _m, _i, out: calls.append(1) or out * 2)
    hooks = copy.copy(model.net[0]._forward_hooks)
    with model.undisturbed(), torch.no_grad():
        g = graph_of(model, x[:1], "0")
        torch.testing.assert_close(g(model.normalised(x)), model(x))
        torch.testing.assert_close(graph_of(model, x[:1])(model.normalised(x)), model(x))
    assert calls
    assert model.net[0]._forward_hooks == hooks


def test_a_network_that_is_gone_is_forgotten():
    model = build("batch norm")
    with model.undisturbed():
        graph_of(model, pictures(1))
    there = weakref.ref(model.net)
    del model
    gc.collect()
    assert there() is None


def test_recorded_runs_are_counted():
    model, x = build("batch norm"), pictures(4)
    with model.undisturbed(), torch.no_grad(), passes.counted(model.net) as counted:
        g = graph_of(model, x[:1])
        assert counted.forwards == 0
        g(model.normalised(x))
    assert counted.forwards == 4


# --- what is refused --------------------------------------------------------------------------------------------------


def changing(s, x):
    s.calls = getattr(s, "calls", 0) + 1
    return s.a(x).mean((2, 3)) * 1.5**s.calls


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda s, x: s.a(x).mean((2, 3)) if x.mean() > 0 else s.a(x).amax((2, 3)), "looks at values of the picture"),
        (lambda s, x: s.a(x).mean((2, 3)) * float(x.max()), "looks at values of the picture"),
        (lambda s, x: s.a(x + 1e-9 * torch.randn_like(x)).mean((2, 3)), r"random numbers \(randn_like\)"),
        (lambda s, x: F.dropout(s.a(x), 0.5, True).mean((2, 3)), r"random numbers \(bernoulli\)"),
        (lambda s, x: s.a(x)[:, torch.randperm(3)].mean((2, 3)), r"random numbers \(randperm\)"),
        (
            lambda s, x: s.a(x).mean((2, 3)) if len(x) < 3 else s.a(x).amax((2, 3)),
            "depends on the batch size",
        ),
        (
            lambda s, x: s.a(x).mean((2, 3)) if len(x) < 3 else s.a(x).mean((2, 3)) + 1,
            "depends on the batch size",
        ),
        (lambda s, x: s.a(x).mean((2, 3)) + torch.tensor([1.0, len(x), 0.0]), "uses different constants in each run"),
        (lambda s, x: s.a(torch.ones(len(x), 2, 8, 12)).mean((2, 3)), "do not depend on the picture"),
        (changing, "same way every time"),
    ],
    ids=["branch", "item", "noise", "dropout", "permutation", "batch", "batch-more", "constant", "blind", "changing"],
)
def test_what_cannot_be_recorded_is_refused(forward, words):
    model = wrapped(Run(forward, a=conv(2, 3)))
    with model.undisturbed(), pytest.raises(Refused, match=words):
        graph_of(model, pictures(1))
    assert not model.net._forward_hooks


@pytest.mark.parametrize("name", ["leaky_relu", "leaky_relu_", "hardtanh_", "elu_", "selu_", "celu_", "hardsigmoid_"])
def test_what_pytorch_2_11_does_not_tag_works_number_by_number(name):
    untagged = SimpleNamespace(overloadpacket=SimpleNamespace(__name__=name), tags=[])
    assert is_pointwise(untagged)
    assert is_pointwise(getattr(torch.ops.aten, name).default)
    untagged.overloadpacket.__name__ = "sum"
    assert not is_pointwise(untagged)
