"""What the first call on a network does: counted in passes, and in what of them is computed."""

import gc
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core import batching, fingerprint
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.settled import settled
from clearsight.errors import Refused
from clearsight.internals import probe, recording
from clearsight.internals.by_tensor import ByTensor
from clearsight.internals.finite_differences import Slopes
from clearsight.internals.graph import Graph
from clearsight.internals.places import sums
from clearsight.internals.rows import NotPlainError
from clearsight.internals.tape import Taped, kind_of
from clearsight.internals.taped_again import OtherWayError, taped_again
from clearsight.runner.run import explain

runs: list[tuple[int, bool]] = []  # of how many pictures each, and whether a gradient is to come back


class Net(nn.Module):
    """Convolutions, BatchNorm and pooling, and a way of its own in between."""

    def __init__(self, between: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.n, self.head = nn.BatchNorm2d(6), nn.Linear(6, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        runs.append((len(x), x.requires_grad))
        h = F.relu_(self.n(self.a(x)))
        return self.head(self.between(F.max_pool2d(h, 2)).mean((2, 3)) + F.adaptive_avg_pool2d(self.b(h), 1).flatten(1))


def model_of(between: Callable[[Tensor], Tensor] = F.relu, *, channels_last: bool = False) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(between)
        net.n.running_mean.normal_()
        net.n.running_var.uniform_(0.5, 2)
    made = Classifier(net.eval(), Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3), tuple("abc"))
    return replace(made, channels_last=channels_last)


def picture() -> Tensor:
    return torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "recordings", type(recording.recordings)())
    monkeypatch.setattr(batching, "kept_alike", type(batching.kept_alike)())
    monkeypatch.setattr(probe, "kin_of", lambda *_: None)


SEEN = [(1, True), (3, False)]  # alone, and with two others
KEPT = [(1, True)]  # what it keeps for its way back
RECORDED = [(2, False), (3, False)]  # the second of which is not computed


@pytest.mark.parametrize(
    ("method", "passes", "followed"),
    [
        ("lrp", [*SEEN, *KEPT, *RECORDED, (1, False)], [1]),  # to which the recording is held
        ("deep-lift", [*SEEN, *KEPT, *RECORDED, (1, False)], [2, 2]),  # how pictures may lie; the map goes another way
        ("guided-backprop", [*SEEN, *KEPT, *RECORDED, (1, True), (1, True)], [1]),  # compared on noise, and explained
    ],
)
def test_each_pass_has_its_use(
    method: str, passes: list[tuple[int, bool]], followed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, follow = model_of(), picture(), Graph.follow
    followings: list[int] = []
    monkeypatch.setattr(Graph, "follow", lambda *a, **k: followings.append(a[3]) or follow(*a, **k))
    runs.clear()
    first = explain(model, x, method).maps
    assert runs == passes
    assert followings == followed
    assert torch.equal(explain(model, x, method).maps, first)


def test_a_gradient_that_the_operations_show_to_be_right_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure_changes", lambda *_: pytest.fail("it is measured"))
    model, x = model_of(), picture()
    with model.undisturbed():
        assert probe.probed(model, x).slopes == Slopes("right")
    silent = model_of()
    with torch.no_grad():
        silent.net.head.weight.zero_()  # where no gradient comes, it is looked at
    with silent.undisturbed(), pytest.raises(pytest.fail.Exception, match="it is measured"):
        probe.probed(silent, x)


def cut(h: Tensor) -> Tensor:
    first, second = h.chunk(2, 1)
    return F.pad(torch.cat([second * first.sigmoid(), first], 1), (1, 0)).transpose(2, 3).reshape(len(h), 6, -1, 1)


def attending(h: Tensor) -> Tensor:
    tokens = h.flatten(2).mT
    return F.scaled_dot_product_attention(tokens, tokens, tokens).mT.unflatten(2, h.shape[2:]) + torch.arange(6.0).view(
        1, 6, 1, 1
    ).expand(len(h), -1, -1, -1)


BETWEEN = [F.relu, cut, attending]


def both(model: Classifier, x: Tensor, layer: str = "") -> tuple[Taped, Taped, Taped]:
    """Recordings of two pictures and of three, and of three without computing them."""
    with model.undisturbed(), torch.no_grad():
        z = model.normalised(x)
        two, three = (recording.recorded_run(model, z, layer, n) for n in (2, 3))
        with recording.to_record(model, z, layer):
            return two, three, taped_again(model.from_normalised, recording.several(z, 3), two, 2)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("between", BETWEEN)
def test_a_run_that_is_not_computed_is_recorded_as_if_it_were(
    between: Callable[[Tensor], Tensor], channels_last: bool
) -> None:
    _, three, again = both(model_of(between, channels_last=channels_last), picture(), "b" if channels_last else "")
    for a, b in zip(three.graph.nodes, again.graph.nodes, strict=True):
        assert (a.op, a.target, str(a.args), str(a.kwargs)) == (b.op, b.target, str(b.args), str(b.kwargs))
        assert (kind_of(a), a.meta.get("strides")) == (kind_of(b), b.meta.get("strides"))
    assert all(torch.equal(t, again.tensors[name]) for name, t in three.tensors.items())


def counted(h: Tensor) -> Tensor:
    return h * 2 if len(h) == 3 else h


def of_a_constant(h: Tensor) -> Tensor:
    ones = torch.ones(h.shape)
    return h * ((ones if len(h) == 3 else h) + 1)


def summed(h: Tensor) -> Tensor:
    return h.cumsum(2)


def test_what_cannot_be_told_is_computed() -> None:
    for way in (counted, of_a_constant):
        with pytest.raises(Refused) as told:
            both(model_of(way), picture())
        assert isinstance(told.value.__cause__, OtherWayError)
    with pytest.raises(NotPlainError):
        both(model_of(summed), picture())
    other = model_of(counted)
    with other.undisturbed(), pytest.raises(Refused, match="depends on the batch size"):
        recording.graph_of(other, picture())
    model, x = model_of(summed), picture()
    with model.undisturbed(), torch.no_grad():
        graph = recording.graph_of(model, x)
        torch.testing.assert_close(graph(model.normalised(x)), model(x))


def test_a_new_recording_that_is_another_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def turning(h: Tensor) -> Tensor:
        calls.append(len(h))
        return h if torch._C._functorch.maybe_current_level() is None else h * 2

    for method in ("lrp", "deep-lift", "guided-backprop"):
        with pytest.raises(Refused, match="does not run in the same way every time"):
            explain(model_of(turning), picture(), method)
        assert not recording.recordings


def test_tensors_are_known_as_long_as_they_live() -> None:
    known: ByTensor[str] = ByTensor()
    a = torch.rand(3, requires_grad=True) * 2
    b = a.sin()  # autograd keeps a
    known.put(a, "a")
    del a
    assert known.get(b.grad_fn._saved_self) == "a"  # type: ignore[union-attr]
    del b
    assert len(known) == 0
    for _ in range(50):  # some of which lie where others lay
        t = torch.rand(3)
        assert known.get(t) is None
        known.put(t, "t")
    assert len(known) == 1


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_sums_of_changes_are_the_same_however_they_lie(memory: torch.memory_format) -> None:
    change = torch.rand(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    for found, axis in zip(sums(change.contiguous(memory_format=memory)), (1, -1), strict=True):
        torch.testing.assert_close(found, change.sum(axis))


def test_no_garbage_is_looked_for_in_the_first_call() -> None:
    model, x, looks = model_of(), picture(), list[int]()
    explain(model_of(), x, "lrp")  # which imports what it needs
    recording.recordings.clear()

    def look(phase: str, about: dict[str, Any]) -> None:
        looks.append(about["generation"])

    threshold = gc.get_threshold()
    gc.callbacks.append(look)
    gc.set_threshold(50)
    try:
        explain(model, x, "lrp")
        at_first = len(looks)
        assert gc.isenabled()
        for _ in range(2):
            explain(model, x, "lrp")
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(look)
    assert 2 * at_first <= len(looks) - at_first  # no more than in a later one


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Those that hash weights; any weights are worth one."""
    found: list[threading.Thread] = []
    before = fingerprint.hash_of
    monkeypatch.setattr(fingerprint, "hash_of", lambda p: found.append(threading.current_thread()) or before(p))
    monkeypatch.setattr(fingerprint, "WORTH", 0)
    monkeypatch.setattr(fingerprint, "processors", lambda: 2)
    return found


def by_hand(net: nn.Module) -> str:
    h = hashlib.sha256()
    for name, t in net.state_dict().items():
        h.update(name.encode() + f"{t.dtype}{tuple(t.shape)}".encode() + t.numpy().tobytes())
    return h.hexdigest()[:16]


def test_weights_are_named_by_another_thread_meanwhile(threads: list[threading.Thread]) -> None:
    model, x = model_of(), picture()
    assert explain(model, x, "saliency").fingerprint == by_hand(model.net)
    explain(model, x, "saliency")
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    with torch.no_grad():
        model.net.a.weight.mul_(2)
    assert explain(model, x, "saliency").fingerprint == by_hand(model.net)
    assert len(threads) == 2


def test_weights_that_change_meanwhile_are_named_as_they_are_then(threads: list[threading.Thread]) -> None:
    model = model_of()
    with settled(model.net), fingerprint.hashed_aside(model.net):
        model.net.n.running_mean.add_(1)
        assert model.fingerprint() == by_hand(model.net)
    assert [t is threading.main_thread() for t in threads] == [False, True]
