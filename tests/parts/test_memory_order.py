"""How pictures lie in memory: a network that may be given their channels last is, and gives the same as before."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clearsight as cs
from clearsight.core import fastest_order, pixel_convolution
from clearsight.core.batching import bounded
from clearsight.core.fastest_order import may_lie_last
from clearsight.core.memory_order import last, lies_last
from clearsight.explainers.common import gradient
from clearsight.explainers.common.gradient import many_passes
from clearsight.internals import recording
from clearsight.internals.graph import Graph

Read = Callable[[Tensor], Tensor]
CALLS = ("saliency(absolute=false)", "grad-cam(layer=maps)", "guided-backprop", "deconvnet")


class Net(nn.Module):
    """Convolutions with BatchNorm, and a head that reads their maps (B, 6, 4, 4) by one way or the other.

    asked: of each pass how many pictures came, and whether their channels lay last.
    """

    def __init__(self, read: Read, channels: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.maps = nn.Sequential(
                nn.Conv2d(channels, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 6, 1, stride=2), nn.ReLU(),
            )  # fmt: skip
            for norm in (self.maps[1], self.maps[4]):
                norm.running_mean.normal_(std=0.2)
                norm.running_var.uniform_(0.5, 2)
            self.head = nn.Linear(96, 3)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        asked.append((len(x), lies_last(x)))
        return self.head(self.read(self.maps(x)))


asked: list[tuple[int, bool]] = []


def flat(maps: Tensor) -> Tensor:
    return maps.flatten(1)


def viewed(maps: Tensor) -> Tensor:
    return maps.view(len(maps), -1)


def by_how_they_lie(maps: Tensor) -> Tensor:
    return torch.as_strided(maps, (len(maps), 96), (96, 1))


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, maps: Tensor) -> Tensor:
        return maps.clone()

    @staticmethod
    def backward(_ctx, g: Tensor) -> Tensor:
        return g.view(-1).view(g.shape)


def by_a_function(maps: Tensor) -> Tensor:
    return _Own.apply(maps).flatten(1)


def model(net: nn.Module, size: int = 32, channels: int = 3) -> cs.Classifier:
    preprocess = cs.Preprocess((size, size), (0.5,) * channels, (0.25,) * channels)
    return cs.wrap(net.eval(), preprocess, labels=["a", "b", "c"])


def pictures(size: int = 32, channels: int = 3, n: int = 3) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def afresh(monkeypatch) -> None:
    monkeypatch.setattr(fastest_order, "laid_alike", OrderedDict())
    asked.clear()


@pytest.fixture
def one_thread(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(pixel_convolution, "LEAST", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("read", "laid"), [(flat, True), (viewed, False), (by_how_they_lie, False)])
def test_maps_and_passes_are_those_of_pictures_that_lie_as_ever(
    read: Read, laid: bool, call: str, one_thread, monkeypatch
) -> None:
    made, x = model(Net(read)), pictures()
    found = cs.explain(made, x, call, cs.ClassScore(1))
    asked.clear()
    again = cs.explain(made, x, call, cs.ClassScore(1))
    assert [n for n, _ in asked if n == 3] == [3]  # one pass over all pictures, as was asked for
    assert all(lay is laid for n, lay in asked if n == 3)
    assert (again.forwards, again.backwards) == (found.forwards, found.backwards) == (1, 1)
    assert torch.equal(again.maps, found.maps)
    monkeypatch.setattr(fastest_order, "CONVOLUTIONS", 10**6)
    monkeypatch.setattr(pixel_convolution, "LEAST", 10**9)
    plain = cs.explain(made, x, call, cs.ClassScore(1))
    torch.testing.assert_close(found.maps, plain.maps, rtol=1e-5, atol=1e-5 * float(plain.maps.abs().max()))


def test_a_network_is_looked_at_once_for_all_that_differ_in_their_weights() -> None:
    made, x = model(Net(flat)), pictures()
    with made.undisturbed():
        assert may_lie_last(made, x)
        assert asked == [(2, False), (2, True)]
        other = model(Net(flat))
        with torch.no_grad():
            other.net.head.weight.mul_(2)
        assert may_lie_last(other, x)
        assert may_lie_last(made, x)
        assert len(asked) == 2
        assert not may_lie_last(model(Net(viewed)), x)
        assert len(asked) == 4


@pytest.mark.parametrize(
    "why",
    [
        "its own function",
        "a hook",
        "what nobody can compare",
        "TorchScript",
        "double",
        "one channel",
        "small",
        "few convolutions",
    ],
)
def test_pictures_lie_as_ever(why: str) -> None:
    net, channels, size = Net(by_a_function if why == "its own function" else flat), 3, 32
    if why == "one channel":
        net, channels = Net(flat, 1), 1
    elif why == "small":
        net, size = Net(flat), 31
    elif why == "few convolutions":
        net = nn.Sequential(nn.Conv2d(3, 2, 3, stride=4), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    elif why == "what nobody can compare":
        net = Net(flat)
        net.something = object()
    elif why == "a hook":
        net.maps.register_forward_hook(lambda _m, _a, out: out.contiguous())
    elif why == "TorchScript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated
            net = torch.jit.trace(net.eval(), pictures())
    made, x = model(net, size, channels), pictures(size, channels)
    if why == "double":
        made, x = model(net.double()), x.double()
    asked.clear()
    with made.undisturbed(), bounded(made, x[:1], None):
        assert not may_lie_last(made, x)
        asked.clear()
        made(x)
        assert not any(lay for _, lay in asked)


def test_they_lie_last_for_that_network_and_shape_alone() -> None:
    made, x = model(Net(flat)), pictures()
    other = model(Net(flat))
    with made.undisturbed(), bounded(made, x[:1], None):
        asked.clear()
        made(x), other(x), made(torch.cat([x, x], 3)[..., :33]), made(x)  # 33 columns give 4 x 5 maps
        assert asked == [(3, True), (3, False), (3, False), (3, True)]


def as_of_tokens(maps: Tensor) -> Tensor:
    """The same maps, which lie as those that tokens become: one picture's stride is none of these orders'."""
    return maps.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).reshape(maps.shape)


@pytest.mark.parametrize("n", [1, 3])
def test_maps_whose_channels_lie_last_stay_so_in_batch_norm_and_its_gradient_is_right(n: int) -> None:
    norm = Net(flat).maps[1].eval().requires_grad_(False)
    x, g = pictures(5, 8, n), pictures(5, 8, n).flip(0, 2)
    double = x.double().requires_grad_()
    (wanted,) = torch.autograd.grad(norm.double()(double), double, g.double())
    made = model(nn.Sequential(norm.float()), 5, 8)
    for laid, back in product((x, last(x), as_of_tokens(x)), (g, last(g), as_of_tokens(g))):
        z = laid.detach().requires_grad_()
        with made.undisturbed():
            out = norm(z)
            (found,) = torch.autograd.grad(out, z, back)
        assert lies_last(out) is lies_last(z)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("why", "gap"),
    [("", 2), ("several threads", 1), ("16 pictures", 1), ("groups", 1), ("3 x 3", 1), ("as ever", 1), ("double", 1)],
)
def test_one_thread_runs_a_convolution_of_one_pixel_with_a_gap(why: str, gap: int, one_thread) -> None:
    if why == "several threads":
        torch.set_num_threads(2)
    x = pictures(8, 6, 16 if why == "16 pictures" else 15)
    x = (x if why == "as ever" else last(x)).to(torch.float64 if why == "double" else torch.float32).requires_grad_()
    groups, side = 2 if why == "groups" else 1, 3 if why == "3 x 3" else 1
    weight = pictures(side, 6 // groups, 8).to(x)
    gaps: list[int] = []

    def conv2d(*args):
        gaps.append(args[5])
        return F.conv2d(*args)

    out = pixel_convolution.widened(conv2d)(x, weight, None, 1, 0, groups=groups)
    assert gaps == [gap]
    wanted = F.conv2d(x, weight, groups=groups)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    (found,), (slope,) = (torch.autograd.grad(t.square().sum(), x) for t in (out, wanted))
    torch.testing.assert_close(found, slope, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("always", [False, True])
def test_a_gap_stands_in_no_recording_is_used_where_one_is_followed_and_outside_nothing_is_changed(
    always: bool, one_thread, monkeypatch
) -> None:
    """always: whoever made the model says that its pictures lie last, which stands in the recording."""
    monkeypatch.setattr(recording, "recordings", OrderedDict())
    used: list[bool] = []
    gains = pixel_convolution.gains
    monkeypatch.setattr(pixel_convolution, "gains", lambda x, weight: used.append(gains(x, weight)) or used[-1])
    made, x = replace(model(Net(flat)), channels_last=always), pictures()
    conv2d = F.conv2d
    with made.undisturbed(), bounded(made, x[:1], None):
        assert F.conv2d is not conv2d
        graph = recording.graph_of(made, x[:1])
        assert {tuple(n.args[5]) for n in graph.nodes if "convolution" in str(n.target)} == {(1, 1)}
        assert any("memory_format" in n.kwargs for n in graph.nodes) is always
        with many_passes(made, x, gradient.WORTH):
            used.clear()  # what the looks at it asked
            found = gradient.folded_outputs(made, x)
        assert used == [False, True, True]
        torch.testing.assert_close(found, made(x), rtol=1e-5, atol=1e-5)
        assert used == [False, True, True] * 2
    assert F.conv2d is conv2d


def test_a_recording_is_looked_at_once_for_all_that_share_it(monkeypatch) -> None:
    monkeypatch.setattr(recording, "recordings", OrderedDict())
    runs: list[bool] = []
    run = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", lambda self, z, rules=None: runs.append(lies_last(z)) or run(self, z, rules))
    x = pictures()
    for scale in (1, 2):
        made = model(Net(flat))
        with torch.no_grad():
            made.net.head.weight.mul_(scale)
        with made.undisturbed(), many_passes(made, x, gradient.WORTH):
            pass
    assert runs.count(True) == 1
