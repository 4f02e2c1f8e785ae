"""Forward passes by fused operations beside the network's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.passes import counted
from clearsight.core.preprocess import Preprocess
from clearsight.core.remembered import remembering
from clearsight.core.targets import ClassScore
from clearsight.internals.fused_forward import PAYS, fused_forward
from clearsight.internals.recording import graph_of
from clearsight.runner.run import measure
from kindnets import small_pyramid


class Forked(nn.Module):
    """A convolution that its activation does not read alone, and one whose BatchNorm two read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.norm(self.second(x))
        return a.relu() + a + b.relu() - 0.5 * b


class PaddedForTwo(nn.Module):
    """Two convolutions of each channel read the same padded picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(8, 8, 3, groups=8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, 1, 0, 1))
        return self.first(x) - self.second(x)


def padded(*widths: int, value: float = 0.0, groups: int = 8) -> nn.Module:
    """A border, wider on one side, before a convolution of each channel that skips every other place."""
    return nn.Sequential(nn.ConstantPad2d(widths, value), nn.Conv2d(8, 8, 3, stride=2, groups=groups))


PARTS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "in place": lambda: nn.ReLU6(inplace=True),
    "SiLU": nn.SiLU,
    "within one": nn.Hardtanh,
    "within others": lambda: nn.Hardtanh(-0.25, 0.5),
    "GELU": nn.GELU,
    "forked": Forked,
    "of each channel": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
    "padded right and below": lambda: padded(0, 1, 0, 2),
    "padded left and above": lambda: padded(3, 1, 1, 0),
    "padded with ones": lambda: padded(0, 1, 0, 1, value=1.0),
    "padded for all channels": lambda: padded(0, 1, 0, 1, groups=1),
    "padded for two": PaddedForTwo,
    "transposed": lambda: nn.ConvTranspose2d(8, 8, 2, stride=2),
}


def classifier(part: nn.Module) -> Classifier:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), norm, part, nn.Conv2d(8, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 4),
    ).eval()  # fmt: skip
    return Classifier(net, Preprocess(15, (0.5,) * 3, (0.25,) * 3), tuple("abcd"))


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 15, 15, generator=torch.Generator().manual_seed(count))


def calls_of_first_layer(model: Classifier) -> list[int]:
    """How many pictures the network's own first layer is given, call by call, from here on; without a hook."""
    seen: list[int] = []
    layer = model.net[0]
    run = layer._conv_forward
    layer._conv_forward = lambda x, *more: seen.append(len(x)) or run(x, *more)
    return seen


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_logits_are_those_of_the_network(make: Callable[[], nn.Module]) -> None:
    model = classifier(make())
    with model.undisturbed(), torch.no_grad():
        graph_of(model, pictures(1))
        wanted = [model(pictures(n)) for n in (1, 2, 5)]
        seen = calls_of_first_layer(model)
        with remembering(), fused_forward(model, pictures(1), PAYS), counted(model.net) as passes:
            checked = len(seen)
            found = [model(pictures(n)) for n in (1, 2, 5)]
    assert len(seen) == checked
    assert passes.forwards == 8
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("groups", "borders"), [(8, 0), (1, 1)])
def test_a_border_before_a_convolution_of_each_channel_is_not_written(groups: int, borders: int) -> None:
    model = classifier(padded(0, 1, 0, 2, groups=groups))
    with model.undisturbed(), torch.no_grad():
        graph_of(model, pictures(1))
        with remembering(), fused_forward(model, pictures(1), PAYS), torch.autograd.profiler.profile() as run:
            model(pictures(2))
    assert sum(event.name == "aten::constant_pad_nd" for event in run.function_events) == borders


def test_a_metric_has_the_same_values() -> None:
    model, x = classifier(nn.ReLU6()), pictures(3)
    maps = torch.rand(3, 15, 15, generator=torch.Generator().manual_seed(7))
    target = ClassScore(torch.tensor([0, 1, 2]), of="prob")
    for metric in ("insertion(steps=3)", "deletion(steps=3)", "road(steps=2)"):
        wanted = measure(model, x, maps, metric, target)
        with model.undisturbed():
            graph_of(model, x)
        seen = calls_of_first_layer(model)
        with fused_forward(model, x, PAYS):
            checked = len(seen)
            found = measure(model, x, maps, metric, target)
        assert len(seen) == checked
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_network_itself_is_asked_where_it_matters() -> None:
    """For gradients, other sizes, hooks, weights that changed, and for few pictures, whatever is recorded."""
    model, x = classifier(nn.ReLU()), pictures(2)
    seen = calls_of_first_layer(model)

    def asked(x: Tensor) -> bool:
        before = len(seen)
        model(x)
        return len(seen) > before

    with model.undisturbed():
        graph_of(model, x)
        with fused_forward(model, x, PAYS - 1):
            assert asked(x)
        with fused_forward(model, x, PAYS):
            assert not asked(x)
            assert asked(x.clone().requires_grad_())
            assert asked(torch.rand(2, 3, 17, 17))
            for register in (model.net[3].register_forward_hook, model.net[3].register_forward_pre_hook):
                handle = register(lambda *_: None)
                assert asked(x)
                handle.remove()
            assert not asked(x)
        assert asked(x)
    with fused_forward(model, x, PAYS), torch.no_grad():
        model.net[3].bias.add_(1.0)
        assert asked(x)
        model.net[3].bias.sub_(1.0)


def test_gradients_come_from_the_network() -> None:
    model, x = classifier(nn.SiLU()), pictures(2)
    with model.undisturbed():
        graph_of(model, x)
        slopes = []
        for inside in (False, True):
            z = x.clone().requires_grad_()
            with fused_forward(model, x, PAYS) if inside else torch.enable_grad():
                slopes.append(torch.autograd.grad(model(z)[:, 1].sum(), z)[0])
    assert torch.equal(*slopes)


def test_a_recording_that_no_longer_tells_the_truth_is_not_used() -> None:
    """The network's forward does other things than when it was recorded: its logits are what counts."""
    model, x = classifier(nn.ReLU()), pictures(2)
    with model.undisturbed():
        graph_of(model, x)
        forward = model.net[3].forward
        model.net[3].forward = lambda z: 2 * forward(z)
        wanted = model(x)
        with fused_forward(model, x, PAYS):
            torch.testing.assert_close(model(x), wanted)


def test_it_is_recorded_for_many_pictures_alone_and_where_it_can_be() -> None:
    model, x = classifier(nn.Sequential(nn.Tanh(), nn.ReLU())), pictures(2)  # which no other test records
    seen = calls_of_first_layer(model)
    with model.undisturbed(), torch.no_grad():
        for count, fused in ((PAYS - 1, False), (PAYS, True)):
            with fused_forward(model, x, count):
                before = len(seen)
                model(x)
                assert (len(seen) == before) == fused
    noisy = classifier(Noisy())
    with noisy.undisturbed(), torch.no_grad(), fused_forward(noisy, x, PAYS):
        assert noisy(x).shape == (2, 4)


class Noisy(nn.Module):
    """Cannot be recorded: it draws random numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_boxes_and_logits_are_judged_each_by_their_own_size() -> None:
    """A box's edges are hundreds of pixels, beside which a logit's error would not show."""
    model = small_pyramid()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with model.undisturbed(), torch.no_grad():
        wanted = model(x)
        graph_of(model, x)
        forward = model.net.classes.forward
        model.net.classes.forward = lambda z: forward(z) + 5e-5
        with fused_forward(model, x, PAYS):
            assert (model(x) - wanted)[..., 6].mean().item() == pytest.approx(5e-5, rel=0.1)
        del model.net.classes.forward
        with fused_forward(model, x, PAYS):
            torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-5)
