"""Second derivatives of a recorded network, beside those that PyTorch finds by itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import clearsight as cs
from clearsight.internals.recording import graph_of
from clearsight.internals.second_order import second_order_rules

CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "without a bias": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "in groups": lambda: nn.Conv2d(4, 8, 3, groups=2),
    "of each channel": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "with strides": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0)),
    "with holes": lambda: nn.Conv2d(4, 6, 3, dilation=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2),
}
BETA = 3.0


def soft(a: Tensor, high: float) -> Tensor:
    """The softplus that stands for a ReLU, as written in torch."""
    b = BETA / a.detach().flatten(1).abs().mean(1).view(-1, 1, 1, 1)
    return softplus(a * b) / b - (softplus((a - high) * b) / b if high < torch.inf else 0)


def derivatives(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, K), the slope of the first one, and the second derivative along v, both (B, C, *S)."""
    z = x.clone().requires_grad_()
    out = f(z)
    (g,) = torch.autograd.grad(out[:, 0].sum(), z, create_graph=True)
    (h,) = torch.autograd.grad((g * v).sum(), z)
    return out.detach(), g.detach(), h


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU6()], ids=["ReLU", "ReLU6"])
@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_both_derivatives_are_those_of_torch(make, relu):
    torch.manual_seed(0)
    first = make()
    second = nn.Conv2d(first.out_channels, 3, 2)
    net = nn.Sequential(first, relu, second, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    model = cs.wrap(net, preprocess=cs.Preprocess((7, 8), (0.0,) * 4, (0.1,) * 4), labels=["a", "b", "c"])
    x, v = torch.rand(2, 3, 4, 7, 8, dtype=torch.double)[:, :2]
    x = 10 * x
    high = 6.0 if isinstance(relu, nn.ReLU6) else torch.inf
    with model.undisturbed():
        graph = graph_of(model, x[:1])
        found = derivatives(lambda z: graph(z, second_order_rules(BETA)), x, v)
        wanted = derivatives(lambda z: net[2:](soft(first(z), high)), x, v)
    assert bool((wanted[2].flatten(1).abs().amax(1) > 1e-6).all())
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU6()], ids=["ReLU", "ReLU6"])
def test_what_comes_before_a_marked_layer_is_differentiated_once(relu):
    """The slope, at the pixels, of what the gradient at a layer says: that of the same network written in torch."""
    torch.manual_seed(0)
    first, second, third = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 6, 2), nn.Conv2d(6, 3, 2)
    net = nn.Sequential(first, relu, second, relu, third, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    model = cs.wrap(net, preprocess=cs.Preprocess((7, 8), (0.0,) * 2, (0.1,) * 2), labels=["a", "b", "c"])
    x = 5 * torch.rand(2, 2, 7, 8, dtype=torch.double)
    high = 6.0 if isinstance(relu, nn.ReLU6) else torch.inf
    slopes = []
    with model.undisturbed():
        graph = graph_of(model, x[:1], "2")
        for own in (False, True):
            z = x.clone().requires_grad_()
            if own:
                layer = [second(soft(first(z), high))]
                out = third(soft(layer[0], high)).mean((2, 3))
            else:
                layer = []
                mark = {"mark": lambda _graph, _node, args, _kwargs, layer=layer: layer.append(args[0]) or args[0]}
                out = graph(z, {**second_order_rules(BETA), **mark})
            (g,) = torch.autograd.grad(out[:, 0].square().sum(), layer[0], create_graph=True)
            slopes.append((out.detach(), g.detach(), *torch.autograd.grad((g * layer[0]).sum(), z)))
    assert bool((slopes[1][2].flatten(1).abs().amax(1) > 1e-6).all())
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_what_lies_far_from_the_bend_is_exact():
    """No overflow, and no loss in single precision, where the exponential is zero or infinite."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).eval()
    nn.init.ones_(net[0].weight)
    model = cs.wrap(net, preprocess=cs.Preprocess((2, 2), (0.0,), (1.0,)), labels=["a", "b"])
    z = torch.tensor([[[[-300.0, 200.0], [1.0, 300.0]]]])
    with model.undisturbed():
        graph = graph_of(model, torch.rand(1, 1, 2, 2))
        p = z.clone().requires_grad_()
        out = graph(p, second_order_rules(1e4))
        (g,) = torch.autograd.grad(out[:, 0].sum(), p, create_graph=True)
        (h,) = torch.autograd.grad(g.sum(), p)
    torch.testing.assert_close(out.detach(), graph(z), rtol=1e-5, atol=0)
    assert bool(torch.isfinite(g).all() and torch.isfinite(h).all())
