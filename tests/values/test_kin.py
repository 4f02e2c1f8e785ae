"""What a second network of the same kind pays: one run of one picture; and what must be seen of it all the same."""

import copy
import types
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ShuffleNetV2, VisionTransformer

from clearsight.core import batching
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.likeness import likeness
from clearsight.core.preprocess import Preprocess
from clearsight.core.settled import settled
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.internals import expected_run, kin, recording, seen_run
from clearsight.internals.graph import Graph
from clearsight.internals.probe import NetworkFacts, network_facts
from clearsight.runner.run import explain

METHODS = sorted(
    name
    for name, m in catalogue("explainers").items()
    if "few-passes" in m.claims and "needs-a-linear-head" not in m.claims
)
runs: list[int] = []  # of how many pictures each; not held by a network, so that two of them stay alike


def act(h: Tensor) -> Tensor:
    return F.relu(h)


class Skewed(torch.autograd.Function):
    """Nothing happens forwards, and backwards something of its own."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, amount: Tensor) -> Tensor:
        ctx.save_for_backward(amount)
        return h.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (amount,) = ctx.saved_tensors
        return g * (1 - 3 * amount), None


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
        self.register_buffer("one", torch.ones(1))

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
        if self.way == "counted":
            return h + self.amount * h * len(h)
        if self.way == "shared out":
            return h + self.amount * (h / len(h))
        if self.way == "by row":
            return h + self.amount * h * torch.arange(len(h)).view(-1, 1, 1, 1)
        if self.way == "as many as there are":
            return h + self.amount * h * self.one.expand(len(h)).sum()
        if self.way == "counting":
            self.one.add_(self.amount)
            return h * self.one
        if self.way == "written into":
            kept = torch.zeros_like(h[:1])
            kept += self.amount * h.sum(0)
            return h + kept
        if self.way == "own way back":
            return Skewed.apply(h, self.amount)  # type: ignore[no-any-return, no-untyped-call]
        if self.way == "gradient hooked":
            h = h * 1
            if not h.requires_grad:
                return h
            h.register_hook(lambda g: g * (1 - 3 * self.amount))  # type: ignore[no-untyped-call]
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
@pytest.mark.parametrize("method", METHODS)
def test_a_second_network_runs_no_more_than_it_does_later(method: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[int] = []
    follow = Graph.follow
    monkeypatch.setattr(Graph, "follow", lambda *a, **k: followed.append(a[3]) or follow(*a, **k))
    first, x = model_of(0), pictures(n)
    explain(first, x, method)
    second = second_of(first)
    recorded = len(recording.recordings)
    found = []
    for _ in range(2):
        runs.clear()
        followed.clear()
        maps = explain(second, x, method).maps
        found.append((sorted(runs), sorted(followed), maps))
    assert found[0][1] == found[1][1]
    assert found[0][0] in (found[1][0], sorted([1, *found[1][0]]))  # the one that shows how it runs, or is used again
    if method in ("lrp", "deep-lift"):  # the pass that shows how it runs is that to which the recording is held
        assert found[0][0] == found[1][0]
    assert len(recording.recordings) == recorded
    assert torch.equal(found[0][2], found[1][2])
    forget_all(monkeypatch)
    assert torch.allclose(explain(second_of(first), x, method).maps, found[0][2], rtol=1e-4, atol=1e-6)


def test_copies_are_alike_and_all_methods_take_over_what_any_has_measured() -> None:
    first, x = model_of(0), pictures()
    explain(first, x, "saliency")
    second = second_of(first)
    runs.clear()
    explain(second, x, "saliency")
    assert sorted(runs) == [1, len(x)]
    facts = network_facts(second, x[:1])
    assert facts.probe is network_facts(first, x[:1]).probe
    third = second_of(first)
    third.net.way = "aside"
    runs.clear()
    explain(third, x, "saliency")
    assert sorted(runs)[-2:] == [3, len(x)]  # it is measured itself


def hooked() -> nn.Module:
    net = Net()
    net.a.register_forward_hook(scaled_by(0.5))
    return net


def shuffling() -> nn.Module:
    return ShuffleNetV2([1, 1, 1], [4, 8, 8, 8, 16], num_classes=3)


def attending() -> nn.Module:
    net = VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=3
    )
    nn.init.normal_(net.heads.head.weight)
    return net


@pytest.mark.parametrize(
    ("make", "method", "more"),
    [
        (hooked, "saliency", [1]),
        (shuffling, "saliency", [1]),
        (shuffling, "grad-cam", [1]),
        (shuffling, "lrp", [1]),
        (attending, "saliency", [1]),
        (attending, "deep-lift", [1]),
        (attending, "grad-cam", [1, 2, 2, 2, 2]),  # what depends on weights is looked for: which layer to read
    ],
)
def test_networks_of_all_kinds_are_known_again(
    make: Callable[[], nn.Module], method: str, more: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    returned = Classifier.returned
    monkeypatch.setattr(Classifier, "returned", lambda self, z: passes.append(len(z)) or returned(self, z))
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))

    def built(seed: int) -> Classifier:  # not a copy: built by the same lines
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Classifier(make().eval(), Preprocess((64, 64), (0.5,) * 3, (0.25,) * 3), tuple("abc"))

    explain(built(0), x, method)
    recorded = len(recording.recordings)
    second = built(1)
    passes.clear()
    found = explain(second, x, method).maps
    at_first = sorted(passes)
    passes.clear()
    explain(second, x, method)
    assert at_first in (sorted(passes), sorted([*passes, *more]))
    assert len(recording.recordings) == recorded
    forget_all(monkeypatch)
    torch.testing.assert_close(explain(built(1), x, method).maps, found, rtol=1e-6, atol=1e-6)


class Pixelwise(nn.Module):
    """A convolution of one pixel, which one thread runs with a gap where several pictures lie channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 3)
        self.b = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x.contiguous(memory_format=torch.channels_last)))
        return self.head(self.b(h).mean((2, 3)))


def test_gaps_in_a_kernel_of_one_pixel_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    gaps: list[int] = []
    conv2d = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *a, **k: gaps.append(a[5]) or conv2d(*a, **k))
    first = Classifier(Pixelwise().eval(), Preprocess((32, 32), (0.5,) * 3, (0.25,) * 3), tuple("abc"))
    facts = network_facts_of(first, x := torch.rand(1, 3, 32, 32))
    assert {*gaps} == {(1, 1), 2}
    assert facts.kin is not None
    assert network_facts_of(second_of(first), x).probe is facts.probe


def network_facts_of(model: Classifier, x: Tensor) -> NetworkFacts:
    with settled(model.net), model.undisturbed():
        return network_facts(model, x)


tables: dict[int, Tensor] = {}


class Tabled(Net):
    """Makes a table when it first needs one, and keeps it."""

    def between(self, h: Tensor) -> Tensor:
        return h * tables.setdefault(len(h), torch.linspace(1, 2, 12))


def test_kept_tables_hold_values_after_a_run_that_was_not_computed() -> None:
    """What depends on pictures is not computed where a run is but compared; all else is, which may be kept for ever."""
    first = model_of(0)
    first.net.__class__ = Tabled
    tables.clear()
    facts = network_facts_of(first, x := pictures(1))
    tables.clear()
    assert network_facts_of(second_of(first), x).probe is facts.probe
    assert torch.equal(tables[1], torch.linspace(1, 2, 12))


def test_a_run_that_is_but_compared_ends_with_the_first_other_step(monkeypatch: pytest.MonkeyPatch) -> None:
    first = model_of(0)
    network_facts_of(first, x := pictures(1))
    second, reached = second_of(first), []
    before = expected_run.Comparing.compare
    monkeypatch.setattr(
        expected_run.Comparing,
        "compare",
        lambda self, func, *a: reached.append(func.overloadpacket.__name__) or before(self, func, *a),
    )
    monkeypatch.setitem(globals(), "act", lambda h: F.leaky_relu(h, 0.1))
    network_facts_of(second, x)
    assert reached[-1] == "leaky_relu"


TABLE = torch.tensor([[1.0, 2.0]])
OTHER_TABLE = torch.tensor([[1.0, 3.0]])


def written_to(z: Tensor) -> Tensor:
    h = z * 2.0
    k = torch.add(h, z, alpha=2).relu_()
    out = torch.cat([k * TABLE, h])
    out[:1].add_(1)
    k + 1  # which nothing comes of
    return out


def another(what: str) -> Callable[[Tensor], Tensor]:
    def run(z: Tensor) -> Tensor:
        h = z * (3.0 if what == "number" else 2.0)
        add = torch.sub if what == "operation" else torch.add
        k = add(h, h if what == "tensor" else z, alpha=3 if what == "keyword" else 2).relu_()
        parts = [k * (OTHER_TABLE if what == "constant" else TABLE), h]
        out = torch.cat(parts[::-1] if what == "order" else parts)
        out[:1].add_(1)
        if what != "shorter":
            k + 1
        return out[:1] if what == "end" else out

    return run


def test_another_run_is_seen() -> None:
    """Step by step, as by who writes all steps down; and what it gives, where it is computed."""
    net, start = nn.Linear(2, 2), torch.tensor([[0.5, -1.0]])

    def begun() -> Tensor:
        return start.clone().requires_grad_() * 1

    z = begun()
    sight = seen_run.Sight(net, z)
    out = sight.look(lambda: written_to(z))
    known = expected_run.Expected(sight.run(out))
    for computed in (False, True):
        z = begun()
        found, run = known.seen_in(net, z, lambda z=z: written_to(z), computed=computed)  # type: ignore[misc]
        assert run == known.run
        assert not computed or torch.equal(found, out)
        for what in ("operation", "number", "tensor", "keyword", "constant", "order", "shorter", "end"):
            z = begun()
            try:
                _, run = known.seen_in(net, z, lambda z=z, what=what: another(what)(z), computed=computed)  # type: ignore[misc]
            except expected_run.OtherStepError:
                continue
            assert what in ("shorter", "end")
            assert run != known.run


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


class Tripled(torch.autograd.Function):
    """A ReLU forwards, and backwards three times it."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return F.relu(h)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * g


def with_a_hook(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.a.register_forward_hook(lambda _m, _i, out: aside(out))


def scaled_by(amount: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda _module, _inputs, out: out * amount


class Counting:
    """A hook with a memory."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def __call__(self, _module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        self.runs.append(len(out))
        return out


def with_a_hook_of_another_constant(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.a.register_forward_hook(scaled_by(2.0))
    model.net.a.register_forward_hook(scaled_by(-3.0))


def with_another_module(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.n = nn.GELU()


def in_training(model: Classifier, _: pytest.MonkeyPatch) -> None:
    model.net.train()


CHANGES: list[tuple[str, Change]] = [
    *((way, with_more) for way in (
        "detached", "aside", "neighbours", "read", "listed", "array", "compared", "inference", "counted", "shared out",
        "by row", "as many as there are", "counting", "written into", "own way back", "gradient hooked")),
    *(("", change) for change in (
        with_a_flag, with_a_private_flag, with_an_item, with_a_flag_of_the_class, with_another_method,
        with_its_own_method, with_its_own_forward, with_another_function, with_a_function_that_goes_aside, with_a_hook,
        with_another_module, with_a_hook_of_another_constant)),
    ("in training", in_training),
]  # fmt: skip


REFUSED = (
    "detached", "aside", "neighbours", "counted", "shared out", "by row", "as many as there are", "counting",
    "written into", "own way back", "gradient hooked",
)  # fmt: skip


def outcome(model: Classifier, method: str, n: int) -> Tensor | str:
    try:
        return explain(model, pictures(n), method, ClassScore(1)).maps
    except Refused as e:
        return str(e)


@pytest.mark.parametrize("method", ["lrp", "saliency"])
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
        assert isinstance(wanted, str) or method != "saliency" or way not in REFUSED
        assert type(got) is type(wanted), (got, wanted)
        if isinstance(wanted, str):
            assert got == wanted
        else:
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_another_way_back_through_the_same_steps_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    first = model_of(0)
    assert isinstance(outcome(first, "saliency", 1), Tensor)
    monkeypatch.setitem(globals(), "act", Tripled.apply)
    assert "is not that of the scores" in str(outcome(second_of(first), "saliency", 1))


def test_networks_are_alike_in_all_but_the_values_of_their_weights() -> None:
    first = model_of(0)
    assert likeness(first.net) == likeness(second_of(first).net)
    assert likeness(first.net).certain
    second = second_of(first)
    second.net.something = object()
    assert not likeness(second.net).certain
    explain(second, pictures(), "saliency")
    assert not kin.kinds


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


def test_networks_are_alike_whose_hooks_do_the_same() -> None:
    """Those that the same lines made around the same constants; of any other object it is not known what it holds."""
    first, second, third, fourth = (model_of(0).net for _ in range(4))
    first.a.register_forward_hook(scaled_by(0.5))
    second.a.register_forward_hook(scaled_by(0.5))
    third.a.register_forward_hook(scaled_by(0.6))
    kept: list[Tensor] = []
    fourth.a.register_forward_hook(lambda _module, _inputs, out: kept.append(out))
    assert likeness(first) == likeness(second)
    assert likeness(first).certain
    assert likeness(first) != likeness(third)
    assert likeness(fourth) == likeness(copy.deepcopy(fourth)) != likeness(model_of(0).net)
    first.a.register_forward_hook(Counting())
    assert not likeness(first).certain
