"""That a network still runs as before is seen without a pass: what differs is seen, and nobody is given no values."""

import copy
from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.settled import settled
from clearsight.core.targets import ClassScore
from clearsight.internals import kin, recording
from clearsight.internals.expected_run import Expected
from clearsight.internals.probe import probed
from clearsight.internals.seen_again import runs_as_before, scores_seen
from clearsight.runner.run import explain

METHODS = ["lrp", "rap", "contrastive-lrp", "deep-lift"]
how = {"act": F.relu, "factor": 1.0, "looks": False, "ends early": False}


class Net(nn.Module):
    """Does what a word outside of it says, which none of its attributes shows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.c = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = how["act"](self.b(F.relu(self.n(self.a(x))))) * how["factor"]
        if how["looks"] and h.numpy().size:
            h = h * 1.5
        pooled = h.mean((2, 3))
        return pooled if how["ends early"] else self.c(pooled)


def model_of(seed: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net().eval()
    return Classifier(net, Preprocess((12, 12), (0.5,) * 3, (0.25,) * 3), tuple("abcd"))


@pytest.fixture(autouse=True)
def as_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "recordings", OrderedDict())
    monkeypatch.setattr(kin, "kinds", OrderedDict())
    for word, value in (("act", F.relu), ("factor", 1.0), ("looks", False), ("ends early", False)):
        monkeypatch.setitem(how, word, value)


def pictures(n: int = 3) -> Tensor:
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(4))


class Convolved(TorchDispatchMode):
    """Counts the numbers that convolutions give."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers += out.numel() if func is torch.ops.aten.convolution.default else 0
        return out


def convolved(model: Classifier, x: Tensor, method: str) -> tuple[int, Tensor]:
    """How much a call convolves, and its maps."""
    with Convolved() as counter:
        maps = explain(model, x, method, ClassScore(1)).maps
    return counter.numbers, maps


@pytest.mark.parametrize("method", METHODS)
def test_the_network_computes_no_picture_to_show_how_it_runs(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = model_of(0), pictures()
    explain(model, x, method, ClassScore(1))
    found, maps = convolved(model, x, method)
    monkeypatch.setattr(recording, "runs_as_held", lambda *_: False)
    computed, wanted = convolved(model, x, method)
    with Convolved() as whole, torch.no_grad():
        model(x[:1])
    assert computed - found == whole.numbers > 0
    assert torch.equal(maps, wanted)


@pytest.mark.parametrize("method", METHODS)
def test_a_second_network_computes_no_picture_either(method: str) -> None:
    first, second, x = model_of(0), model_of(1), pictures()
    explain(first, x, method, ClassScore(1))
    at_first, maps = convolved(second, x, method)
    later, again = convolved(second, x, method)
    assert at_first == later
    assert torch.equal(maps, again)
    recording.recordings.clear()
    alone = explain(Classifier(copy.deepcopy(second.net), second.preprocess, second.labels), x, method, ClassScore(1))
    torch.testing.assert_close(maps, alone.maps, rtol=1e-5, atol=1e-6)


def seen(model: Classifier, x: Tensor, way: Expected) -> bool:
    with settled(model.net), model.undisturbed():
        return runs_as_before(model, x, way)


@pytest.mark.parametrize(
    ("word", "value"),
    [("act", F.softplus), ("factor", 2.0), ("act", lambda h: h.relu() + 0), ("ends early", True)],
    ids=["operation", "number", "more", "fewer"],
)
def test_what_runs_in_another_way_is_seen(word: str, value: object) -> None:
    model, x = model_of(0), pictures(1)
    with settled(model.net), model.undisturbed():
        scores, way = scores_seen(model, x)
    with torch.no_grad():
        assert torch.equal(scores, model(x))
    assert way is not None
    assert seen(model, x, way)
    assert seen(model_of(1), x, way)
    assert not seen(model, pictures(1).contiguous(memory_format=torch.channels_last), way)
    how[word] = value
    assert not seen(model, x, way)


@pytest.mark.parametrize("method", METHODS)
def test_hooks_of_the_user_get_values(method: str) -> None:
    """Nobody looks at a run without values: a hook may keep, draw or compare what it is given."""
    model, x, got = model_of(0), pictures(), []
    model.net.a.register_forward_hook(lambda _m, args, out: got.append((args[0].clone(), out.clone())))
    second = Classifier(copy.deepcopy(model.net), model.preprocess, model.labels)
    with torch.no_grad():
        second.net.c.weight.mul_(2)  # another network, which is like the first
    for one in (model, model, second, second):
        explain(one, x, method, ClassScore(1))
    assert got
    with torch.no_grad():
        for z, out in got:
            torch.testing.assert_close(F.conv2d(z, model.net.a.weight, model.net.a.bias), out)
    with settled(model.net), model.undisturbed():
        assert scores_seen(model, x[:1])[1] is None


def test_pictures_that_lie_in_another_way_are_computed() -> None:
    """What a step gives lies as that did which it is compared to, which is true of the same start alone."""
    x = pictures(1)
    probes, numbers = [], []
    for seed, given in ((0, x), (1, x), (2, x.contiguous(memory_format=torch.channels_last))):
        model = model_of(seed)
        with settled(model.net), model.undisturbed(), Convolved() as counter:
            probes.append(probed(model, given))
        numbers.append(counter.numbers)
    assert probes[0] is probes[1] is probes[2]
    assert numbers[0] > numbers[2] > numbers[1] == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_forward_that_the_user_has_wrapped_gets_values(method: str) -> None:
    model, x, got = model_of(0), pictures(), []
    forward = model.net.a.forward

    def wrapped(z: Tensor) -> Tensor:
        out = forward(z)
        got.append((z.clone(), out.clone()))
        return out

    model.net.a.forward = wrapped
    for _ in range(3):
        explain(model, x, method, ClassScore(1))
    with torch.no_grad():
        for z, out in got:
            torch.testing.assert_close(F.conv2d(z, model.net.a.weight, model.net.a.bias), out)
    assert got


def test_a_hook_that_comes_later_gets_values_too() -> None:
    model, x, got = model_of(0), pictures(), []
    explain(model, x, "deep-lift", ClassScore(1))
    model.net.a.register_forward_hook(lambda _m, args, out: got.append((args[0], out)))
    explain(model, x, "deep-lift", ClassScore(1))
    with torch.no_grad():
        for z, out in got:
            torch.testing.assert_close(F.conv2d(z, model.net.a.weight, model.net.a.bias), out)
    assert got


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_asks_for_values_is_computed_each_time(method: str) -> None:
    how["looks"] = True
    model, x = model_of(0), pictures()
    maps = explain(model, x, method, ClassScore(1)).maps
    with settled(model.net), model.undisturbed():
        graph = recording.known_graph(model, x)
        assert graph is not None
        assert not recording.runs_as_held(model, x[:1], graph)
    assert torch.equal(explain(model, x, method, ClassScore(1)).maps, maps)


class Keeps(Net):
    """Keeps features, and a table of the size of the batch that it makes of them."""

    table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.features = F.relu(self.n(self.a(x)))
        if self.table is None or self.table.shape != self.features.shape:
            self.table = self.features * 0
        return self.c(self.b(self.features + self.table).mean((2, 3)))


def fresh(model: Classifier, x: Tensor, method: str = "lrp") -> Tensor:
    """The maps of a network of which nothing is known."""
    recording.recordings.clear()
    kin.kinds.clear()
    twin = Classifier(copy.deepcopy(model.net), model.preprocess, model.labels)
    return explain(twin, x, method, ClassScore(1)).maps


@pytest.fixture
def marked_memory() -> Iterator[None]:
    """What nobody has written to holds no numbers."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("marked_memory")
@pytest.mark.parametrize("method", METHODS)
def test_what_a_network_keeps_holds_values(method: str) -> None:
    x = pictures()
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Classifier(Keeps().eval(), Preprocess((12, 12), (0.5,) * 3, (0.25,) * 3), tuple("abcd"))
        with torch.no_grad():
            wanted = model(x[:1])
        for _ in range(2):
            with torch.no_grad():
                model(x)
            explain(model, x, method, ClassScore(1))
            assert model.net.features.isfinite().all()
            with torch.no_grad():
                assert torch.equal(model(x[:1]), wanted)


def test_a_network_that_begins_to_keep_is_computed() -> None:
    model, x = model_of(0), pictures(1)
    with settled(model.net), model.undisturbed():
        way = scores_seen(model, x)[1]
    assert way is not None
    kept: list[Tensor] = []
    how["act"] = lambda h: kept.append(F.relu(h)) or kept[-1]
    assert not seen(model, x, way)


def tried(h: Tensor) -> Tensor:
    """One way, or another one where the first fails."""
    try:
        return F.softplus(h)
    except Exception:
        return F.relu(h)


def test_who_catches_errors_is_seen() -> None:
    model, x = model_of(0), pictures()
    before = explain(model, x, "lrp", ClassScore(1)).maps
    how["act"] = tried
    after = explain(model, x, "lrp", ClassScore(1)).maps
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, fresh(model, x), rtol=1e-5, atol=1e-6)


def test_who_looks_from_now_on_is_given_no_memory_without_values() -> None:
    model, x = model_of(0), pictures(1)
    with settled(model.net), model.undisturbed():
        way = scores_seen(model, x)[1]
    assert way is not None
    given: list[object] = []
    how["act"] = lambda h: given.append(h.numpy()) or F.relu(h)
    assert not seen(model, x, way)
    assert not given


def test_a_network_that_runs_as_others_do_by_now_is_held_anew() -> None:
    """Those that it was seen to be like are not those with which the graph was held."""
    x = pictures()
    explain(model_of(0), x, "lrp", ClassScore(1))
    how["act"] = F.softplus
    explain(model_of(1), x, "saliency", ClassScore(1))
    third = model_of(2)
    maps = explain(third, x, "lrp", ClassScore(1)).maps
    torch.testing.assert_close(maps, fresh(third, x), rtol=1e-5, atol=1e-6)
