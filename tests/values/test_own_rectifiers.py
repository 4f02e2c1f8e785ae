"""Guided gradients by the network's own run: only where it shows the ReLUs of its recording, and never another map."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core import batch_norm
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.explainers.common import rectifiers
from clearsight.runner.run import explain

Step = Callable[[Tensor], Tensor]


class Hidden(torch.autograd.Function):
    """A ReLU of somebody's own."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return g * (ctx.saved_tensors[0] > 0)


class Net(nn.Module):
    """Two convolutions, each behind a BatchNorm, and a step after each; it notes the pictures of every run."""

    def __init__(self, first: Step, second: Step = F.relu) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.n, self.m = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
            self.head = nn.Linear(6, 3)
            for norm in (self.n, self.m):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
        self.steps, self.sizes = (first, second), []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        h = self.steps[0](self.n(self.a(x)))
        return self.head(self.steps[1](self.m(self.b(h))).mean((2, 3)))


def written_over(h: Tensor) -> Tensor:
    out = h.relu()
    out[:, 0] = out[:, 0] * 1  # eager PyTorch cannot go back where what a ReLU gave is written over
    return out


OWN = {
    "functional": F.relu,
    "in place": lambda h: F.relu(h, inplace=True),
    "a method": Tensor.relu,
    "relu6": lambda h: F.relu6(h, inplace=True),
    "twice": lambda h: F.relu(F.relu(h) - 0.3),
}
RECORDED = {
    "clamp": lambda h: h.clamp(min=0),
    "clamp to 1.5": lambda h: h.clamp(0, 1.5),
    "clamp_min": lambda h: h.clamp_min(0),
    "threshold": lambda h: F.threshold(h, 0, 0),
    "written over": written_over,
    "cut elsewhere": lambda h: F.relu(h.clamp(-1, 5)),
}


def classifier(net: nn.Module) -> Classifier:
    return Classifier(net.eval(), Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3), tuple("abc"))


def by_hand(name: str, x: Tensor, k: int, guided: bool) -> Tensor:
    """A network whose every ReLU is a function with that way back."""

    class Way(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h: Tensor, high: float) -> Tensor:
            ctx.save_for_backward((h > 0) & (h < high))
            return h.clamp(0, high)

        @staticmethod
        def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
            return (g * ctx.saved_tensors[0] if guided else g).clamp(min=0), None

    def way(h: Tensor) -> Tensor:
        return Way.apply(h, torch.inf)

    steps = {
        "relu6": lambda h: Way.apply(h, 6.0),
        "clamp to 1.5": lambda h: Way.apply(h, 1.5),
        "twice": lambda h: way(way(h) - 0.3),
        "cut elsewhere": lambda h: way(h.clamp(-1, 5)),
    }
    net = Net(steps.get(name, way), way).eval()
    z = x.clone().requires_grad_()
    net((z - 0.5) / 0.25)[:, k].sum().backward()
    return z.grad.sum(1)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["guided-backprop", "deconvnet"])
@pytest.mark.parametrize("name", [*OWN, *RECORDED])
def test_maps_are_those_by_hand_in_one_pass_where_the_run_shows_its_relus(x: Tensor, name: str, method: str) -> None:
    net = Net({**OWN, **RECORDED}[name])
    model = classifier(net)
    wanted = by_hand(name, x, 1, method == "guided-backprop")
    first = explain(model, x, method, ClassScore(1))
    net.sizes.clear()
    found = explain(model, x, method, ClassScore(1))
    assert net.sizes == ([4] if name in OWN else [1])  # the pictures themselves, or one for the recording
    assert (found.forwards, found.backwards) == (first.forwards, first.backwards) == (1, 1)
    torch.testing.assert_close(found.maps, wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(first.maps, found.maps)


@pytest.mark.parametrize("then", ["clamp", "a function", "written over", "twice", "cut elsewhere"])
def test_a_forward_that_is_another_one_by_now_is_followed(x: Tensor, then: str) -> None:
    net = Net(F.relu)
    model = classifier(net)
    explain(model, x, "guided-backprop", ClassScore(1))
    net.steps = (Hidden.apply if then == "a function" else {**OWN, **RECORDED}[then], F.relu)
    found = explain(model, x, "guided-backprop", ClassScore(1)).maps
    torch.testing.assert_close(found, by_hand(then, x, 1, guided=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("then", [F.gelu, F.leaky_relu, torch.tanh])
def test_other_activations_are_refused_also_where_they_came_later(x: Tensor, then: Step) -> None:
    net = Net(F.relu)
    model = classifier(net)
    explain(model, x, "guided-backprop", ClassScore(1))
    net.steps = (F.relu, then)
    with pytest.raises(Refused, match="is defined for ReLU, and this network has"):
        explain(model, x, "guided-backprop", ClassScore(1))
    net.steps = (lambda h: then(F.relu(h)), F.relu)  # with as many ReLUs as before
    with pytest.raises(Refused, match="is defined for ReLU, and this network has"):
        explain(model, x, "guided-backprop", ClassScore(1))


def test_a_run_that_gives_another_gradient_than_its_recording_is_not_followed(x: Tensor) -> None:
    """Part of the score goes round autograd: the run holds as many ReLUs, and its gradient is not the score's."""

    def partly(h: Tensor) -> Tensor:
        with torch.no_grad():
            aside = h * 2
        return F.relu(h) + aside

    net = Net(F.relu, partly)
    model = classifier(net)
    with model.undisturbed():
        for _ in range(2):
            net.sizes.clear()
            rectifiers.rectified_gradient(model, x, ClassScore(1), lambda _a, passed: passed.clamp(min=0), "guided")
    assert net.sizes == [1]  # by the recording
    with pytest.raises(Refused, match="gradient at the pixels is not that of the scores"):
        explain(model, x, "guided-backprop", ClassScore(1))


@pytest.mark.parametrize("part", [F.relu, torch.negative])
def test_a_part_that_goes_round_autograd_by_now_is_not_lost(x: Tensor, part: Step) -> None:
    def around(h: Tensor) -> Tensor:
        with torch.no_grad():
            aside = part(h + 1)
        return F.relu(h) + aside

    net = Net(F.relu, lambda h: F.relu(h) + part(h + 1))
    model = classifier(net)
    before = explain(model, x, "guided-backprop", ClassScore(1)).maps
    net.steps = (F.relu, around)
    assert torch.allclose(explain(model, x, "guided-backprop", ClassScore(1)).maps, before, rtol=1e-4, atol=1e-6)


def test_a_part_that_goes_round_autograd_and_says_nothing_on_noise_is_seen(x: Tensor) -> None:
    def step(h: Tensor) -> Tensor:
        with torch.no_grad():
            aside = F.relu(h - 100)
        return F.relu(h) + aside

    net = Net(F.relu, step)
    model = classifier(net)
    explain(model, x, "guided-backprop", ClassScore(1))
    net.sizes.clear()
    explain(model, x, "guided-backprop", ClassScore(1))
    assert net.sizes == [1]  # by the recording


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_large_batch_goes_the_same_way(x: Tensor, monkeypatch, channels_last: bool) -> None:
    monkeypatch.setattr(batch_norm, "LARGE", 2000)  # of 4 pictures, not of 1
    net = Net(F.relu)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    model = replace(classifier(net), channels_last=channels_last)
    explain(model, x, "guided-backprop", ClassScore(1))
    net.sizes.clear()
    found = explain(model, x, "guided-backprop", ClassScore(1)).maps
    assert net.sizes == [4]
    torch.testing.assert_close(found, by_hand("functional", x, 1, guided=True), rtol=1e-4, atol=1e-6)


class Pooled(Net):
    """The same with pooling as a module, after which pictures, their channels last, are said to lie anew."""

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        h = self.steps[1](self.m(self.b(self.steps[0](self.n(self.a(x))))))
        return self.head(F.adaptive_avg_pool2d(h, 1).flatten(1))


def test_pooling_of_several_pictures_goes_the_same_way(x: Tensor) -> None:
    net = Pooled(F.relu).to(memory_format=torch.channels_last)
    model = replace(classifier(net), channels_last=True)
    explain(model, x[:1], "guided-backprop", ClassScore(1))
    net.sizes.clear()
    found = explain(model, x, "guided-backprop", ClassScore(1)).maps
    assert net.sizes == [4]
    torch.testing.assert_close(found, by_hand("functional", x, 1, guided=True), rtol=1e-4, atol=1e-6)
