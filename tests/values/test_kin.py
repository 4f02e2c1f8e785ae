"""What a second network of the same kind pays: nothing but its own passes; and what must be seen of it all the same."""

import copy
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core import batching
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.likeness import likeness
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.internals import kin, recording
from clearsight.internals.graph import Graph
from clearsight.internals.probe import known_facts
from clearsight.runner.run import explain

SEES_RUN = sorted(name for name, m in catalogue("explainers").items() if "sees-run" in m.claims)
runs: list[int] = []  # of how many pictures each; not held by a network, so that two of them stay alike


def act(h: Tensor) -> Tensor:
    return F.relu(h)


class Net(nn.Module):
    """Two convolutions with BatchNorm, and what may come in between by a flag, a number or a way of its own."""

    doubled = False

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.n = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        self.way, self._halved, self.steps = "", False, [1.0]
        self.register_buffer("amount", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        runs.append(len(x))
        h = act(self.n(self.a(x)))
        h = self.steps[0] * self.between(h)
        if type(self).doubled:
            h = h * 2
        if self._halved:
            h = h / 2
        return self.head(F.relu(self.b(h)).mean((2, 3)))

    def between(self, h: Tensor) -> Tensor:
        if self.way == "detached":
            return h + self.amount * h.detach()
        if self.way == "aside":
            with torch.no_grad():
                aside = h * h
            return h + self.amount * aside
        if self.way == "neighbours":
            return h + self.amount * h.mean(0, keepdim=True)
        if self.way == "read":
            return h * h if float(self.amount) > 0 else h
        if self.way == "listed":
            return h * h if self.amount.tolist()[0] > 0 else h
        if self.way == "array":
            return h * h if self.amount.numpy()[0] > 0 else h
        if self.way == "compared":
            return h * h if torch.equal(self.amount, torch.ones(1)) else h
        if self.way == "inference":
            with torch.inference_mode():
                much = self.amount.item()
            return h * h if much else h
        if self.way == "in training":
            return h * 3 if self.training else h
        return h


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_all(monkeypatch)


def forget_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "recordings", OrderedDict())
    monkeypatch.setattr(kin, "kinds", OrderedDict())
    monkeypatch.setattr(batching, "kept_alike", OrderedDict())


def pictures(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def model_of(seed: int, way: str = "") -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net()
        for norm in (net.n,):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    net.way = way
    return Classifier(net.eval(), Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3), tuple("abc"))


def second_of(model: Classifier) -> Classifier:
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1.2).add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(9)))
    return replace(model, net=net)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("method", SEES_RUN)
def test_a_second_network_runs_no_more_than_it_does_later(method: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[int] = []
    follow = Graph.follow
    monkeypatch.setattr(Graph, "follow", lambda *a, **k: followed.append(a[3]) or follow(*a, **k))
    first, x = model_of(0), pictures(n)
    explain(first, x, method)
    second = second_of(first)
    found = []
    for _ in range(2):
        runs.clear()
        followed.clear()
        maps = explain(second, x, method).maps
        found.append((sorted(runs), sorted(followed), maps))
    assert found[0][:2] == found[1][:2]
    assert len(found[0][0]) == 1  # of one picture beside a recording, or of all of them instead of it
    assert torch.equal(found[0][2], found[1][2])
    forget_all(monkeypatch)
    assert torch.allclose(explain(second_of(first), x, method).maps, found[0][2], rtol=1e-4, atol=1e-6)


def test_copies_are_alike_and_what_is_measured_of_them_is_taken_over_by_those_who_see_their_run_alone() -> None:
    first, x = model_of(0), pictures()
    explain(first, x, "lrp")
    second = second_of(first)
    explain(second, x, "lrp")
    facts = known_facts(second, x[:1])
    assert facts is not None
    assert facts.taken_over
    runs.clear()
    explain(second, x, "saliency")  # nobody looks at its run: it is measured itself
    assert sorted(runs) == [1, 1, 3, len(x)]
    measured = known_facts(second, x[:1])
    assert measured is not None
    assert not measured.taken_over


Change = Callable[[Classifier, pytest.MonkeyPatch], None]


def with_more(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.amount.fill_(1)


def with_a_flag(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.way = "aside"
    model.net.amount.fill_(1)


def with_a_private_flag(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net._halved = True


def with_an_item(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.steps[0] = -1.0


def with_a_flag_of_the_class(_: Classifier, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Net, "doubled", True)


def aside(h: Tensor) -> Tensor:
    with torch.no_grad():
        more = h * h
    return h + more


def with_another_method(_: Classifier, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Net, "between", lambda _self, h: aside(h))


def with_its_own_method(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.between = types.MethodType(lambda _self, h: aside(h), model.net)


def with_its_own_forward(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.forward = lambda x: Net.forward(model.net, x) * 2 - Net.forward(model.net, x.flip(0))


def with_another_function(_: Classifier, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "act", lambda h: F.leaky_relu(h, 0.1))


def with_a_function_that_goes_aside(_: Classifier, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "act", lambda h: aside(F.relu(h)))


def with_a_hook(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.a.register_forward_hook(lambda _m, _i, out: aside(out))


def with_another_module(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.n = nn.GELU()


def in_training(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.train()


CHANGES: list[tuple[str, Change]] = [
    *((way, with_more) for way in (
        "detached", "aside", "neighbours", "read", "listed", "array", "compared", "inference")),
    *(("", change) for change in (
        with_a_flag, with_a_private_flag, with_an_item, with_a_flag_of_the_class, with_another_method,
        with_its_own_method, with_its_own_forward, with_another_function, with_a_function_that_goes_aside, with_a_hook,
        with_another_module)),
    ("in training", in_training),
]  # fmt: skip


def outcome(model: Classifier, method: str, n: int) -> Tensor | str:
    try:
        return explain(model, pictures(n), method, ClassScore(1)).maps
    except Refused as e:
        return str(e)


@pytest.mark.parametrize("method", ["lrp", "guided-backprop"])
@pytest.mark.parametrize(("way", "change"), CHANGES, ids=[f"{way} {c.__name__}".strip() for way, c in CHANGES])
def test_what_another_network_found_does_not_show(
    way: str, change: Change, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that runs in another way gets the map, or the refusal, that it would get alone."""
    first = model_of(0, way)
    for n in (1, 4):
        outcome(first, method, n)
    second = second_of(first)
    change(second, monkeypatch)
    found = [outcome(second, method, n) for n in (1, 4)]
    forget_all(monkeypatch)
    third = second_of(first)
    change(third, monkeypatch)
    for n, got in zip((1, 4), found, strict=True):
        wanted = outcome(third, method, n)
        assert type(got) is type(wanted), (got, wanted)
        if isinstance(wanted, str):
            assert got == wanted
        else:
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_networks_are_alike_in_all_but_the_values_of_their_weights() -> None:
    first = model_of(0)
    assert likeness(first.net) == likeness(second_of(first).net)
    assert likeness(first.net).certain
    second = second_of(first)
    second.net.something = object()
    assert not likeness(second.net).certain


@pytest.mark.parametrize(
    "change",
    [
        with_a_flag, with_a_private_flag, with_an_item, with_a_flag_of_the_class, with_another_method,
        with_its_own_method, with_its_own_forward, with_a_hook, with_another_module,
    ],
)  # fmt: skip
def test_networks_are_not_alike_where_python_shows_a_difference(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = model_of(0)
    before, second = likeness(first.net), second_of(first)
    change(second, monkeypatch)
    assert likeness(second.net) != before
