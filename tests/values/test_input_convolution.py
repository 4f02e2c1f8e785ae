"""The gradient at the input of a convolution with few input channels is torch's, and the network is left as it was."""

import pytest
import torch
from torch import nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.internals import input_convolution
from clearsight.internals.input_convolution import FEW, folded_back
from clearsight.runner.run import attack


def gradient_and_graph(net, x):
    """The gradient at x of what the network gives, weighed by fixed numbers, and the name of its last step."""
    z = x.detach().requires_grad_()
    out = net(z)
    weights = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).view_as(out)
    (g,) = torch.autograd.grad((out * weights).sum(), z)
    return g, type(out.grad_fn).__name__


GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 3), "padding": (0, 1)},
    {"kernel_size": 3, "dilation": (2, 1), "padding": 2},
    {"kernel_size": 2, "stride": 4},  # pixels that no output sees
    {"kernel_size": 1, "bias": False},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_folded_gradient_is_torchs(geometry, channels, monkeypatch):
    torch.manual_seed(0)
    net = nn.Conv2d(channels, 5, **geometry).requires_grad_(False)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.rand(7, channels, 11, 13).contiguous(memory_format=layout)
        wanted, usual = gradient_and_graph(net, x)
        out = net(x.clone().requires_grad_())
        for columns in (1, 4000, 2**19):  # one picture at a time, a few, all
            monkeypatch.setattr(input_convolution, "COLUMNS", columns)
            with folded_back(net):
                g, step = gradient_and_graph(net, x)
                assert torch.equal(net(x.clone().requires_grad_()), out)
            torch.testing.assert_close(g, wanted, rtol=1e-5, atol=1e-5)
            assert step == "_ConvolutionBackward" != usual


@pytest.mark.parametrize("trains", [("weight", "bias"), ("weight",), ("bias",)], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_weights_that_train_get_torchs_own_gradient(geometry, trains):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 5, **geometry).requires_grad_(False)
    inputs = [
        torch.rand(7, 3, 11, 13).requires_grad_(),
        *(p for name in trains if (p := getattr(net, name)) is not None),
    ]
    for p in inputs:
        p.requires_grad_(True)
    wanted = torch.autograd.grad(net(inputs[0]).square().sum(), inputs)
    with folded_back(net):
        out = net(inputs[0])
    assert type(out.grad_fn).__name__ == "_ConvolutionBackward"
    for a, b in zip(torch.autograd.grad(out.square().sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_second_derivatives_go_through_the_fold():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 1)).requires_grad_(False)
    x = torch.rand(2, 1, 5, 5)

    def slope_of_slope():
        z = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(net(z).sum(), z, create_graph=True)
        return torch.autograd.grad(g.square().sum(), z)[0]

    wanted = slope_of_slope()
    with folded_back(net):
        found = slope_of_slope()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert found.abs().max() > 1e-3


class Other(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


OTHERS = {
    "many channels": (nn.Conv2d(FEW + 1, 6, 3), FEW + 1),
    "groups": (nn.Conv2d(2, 6, 3, groups=2), 2),
    "reflected": (nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect"), 1),
    "padding in words": (nn.Conv2d(1, 6, 3, padding="same"), 1),
    "another class": (Other(1, 6, 3), 1),
    "double": (nn.Conv2d(1, 6, 3).double(), 1),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_convolutions_run_as_they_do(kind):
    net, channels = OTHERS[kind]
    net.requires_grad_(False)
    x = torch.rand(2, channels, 8, 8, dtype=net.weight.dtype)
    wanted, usual = gradient_and_graph(net, x)
    with folded_back(net):
        g, step = gradient_and_graph(net, x)
    assert torch.equal(g, wanted)
    assert step == usual


def test_without_a_gradient_nothing_is_recorded_and_one_picture_may_come_without_a_batch():
    net = nn.Conv2d(1, 4, 3).requires_grad_(False)
    x = torch.rand(1, 8, 8)
    wanted, usual = gradient_and_graph(net, x)
    with folded_back(net):
        assert not net(x[None]).requires_grad
        with torch.no_grad():
            assert not net(x[None].requires_grad_()).requires_grad
        found, step = gradient_and_graph(net, x)
    assert torch.equal(found, wanted)
    assert step == usual


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3))
    mine = net[1]._conv_forward
    net[1]._conv_forward = mine  # of the user's own: it stays
    before = [dict(vars(m)) for m in net.modules()]

    def fails():
        with folded_back(net):
            with folded_back(net):
                assert "_conv_forward" in vars(net[0])
            assert "_conv_forward" in vars(net[0])
            assert vars(net[1])["_conv_forward"] is mine
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [dict(vars(m)) for m in net.modules()] == before


@pytest.mark.parametrize("method", ["pgd(steps=4)", "apgd-ce(steps=4)", "fab(steps=3)", "deepfool"])
def test_attacks_fold_back_and_find_what_they_found(method, monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 3))
    model = Classifier(net, Preprocess(8, (0.5,), (0.5,)), ("a", "b", "c"))
    x = torch.rand(9, 1, 8, 8)
    y = model(x).argmax(1)
    sizes = []
    plain = input_convolution.gradient_at_input

    def counted(g, *rest, **more):
        sizes.append(len(g))
        return plain(g, *rest, **more)

    monkeypatch.setattr(input_convolution, "gradient_at_input", counted)
    found = attack(model, x, y, method, eps=0.05)
    assert sum(sizes) == round(found.backwards * len(x)) > 0
    monkeypatch.setattr(input_convolution, "FEW", 0)
    sizes.clear()
    wanted = attack(model, x, y, method, eps=0.05)
    assert not sizes
    assert torch.equal(found.fooled, wanted.fooled)
    torch.testing.assert_close(found.x, wanted.x, rtol=1e-4, atol=1e-5)


def test_of_no_pictures_there_is_no_gradient() -> None:
    net, x = nn.Conv2d(1, 4, 3), torch.zeros(0, 1, 8, 8, requires_grad=True)
    with folded_back(net):
        (g,) = torch.autograd.grad(net(x).sum(), x)
    assert g.shape == x.shape
