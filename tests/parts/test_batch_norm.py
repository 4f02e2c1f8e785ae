"""BatchNorm with fixed statistics: the way back of a large input is a scale, and equals PyTorch's own."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clearsight as cs
from clearsight.core import batch_norm
from clearsight.core.batch_norm import scaled_back


def norm_and_input(shape: tuple[int, ...], **options) -> tuple[nn.Module, Tensor]:
    g = torch.Generator().manual_seed(0)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    norm = kind(shape[1], **options).eval().requires_grad_(False)
    for t in (*norm.parameters(), *(b for b in norm.buffers() if b.is_floating_point())):
        t.copy_(torch.rand(t.shape, generator=g) + 0.2)
    return norm, torch.randn(shape, generator=g).requires_grad_()


def run(function, norm: nn.Module, x: Tensor) -> Tensor:
    return function(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, 0.1, norm.eps)


@pytest.fixture
def every_size(monkeypatch) -> None:
    monkeypatch.setattr(batch_norm, "LARGE", 1)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3, 4, 5, 6), (2, 4, 3, 3, 2)])
def test_values_are_the_same_bits_and_gradients_the_same_up_to_rounding(every_size, shape, affine) -> None:
    norm, x = norm_and_input(shape, affine=affine, eps=1e-3)
    own, theirs = run(scaled_back(F.batch_norm), norm, x), run(F.batch_norm, norm, x)
    assert own.grad_fn.name() == "ScaledBackBackward"
    assert torch.equal(own, theirs)
    (g,), (wanted,) = (torch.autograd.grad(t.square().sum(), x, create_graph=True) for t in (own, theirs))
    torch.testing.assert_close(g, wanted, rtol=1e-6, atol=1e-6)
    (twice,), (wanted,) = (torch.autograd.grad(t.square().sum(), x) for t in (g, wanted))
    torch.testing.assert_close(twice, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "why", ["small", "training", "weights that learn", "double", "no gradient", "not of the input"]
)
def test_everything_else_stays_as_it_is(monkeypatch, why) -> None:
    norm, x = norm_and_input((3, 4, 5, 6))
    monkeypatch.setattr(batch_norm, "LARGE", x.numel() + (why == "small"))
    if why == "training":
        norm.train()
    elif why == "weights that learn":
        norm.requires_grad_(True)
    elif why == "double":
        norm, x = norm.double(), x.detach().double().requires_grad_()
    elif why == "not of the input":
        x = x.detach()
    with torch.set_grad_enabled(why != "no gradient"):
        out = run(scaled_back(F.batch_norm), norm, x)
    assert "Scaled" not in type(out.grad_fn).__name__
    assert torch.equal(out, run(F.batch_norm, norm, x))


def test_a_call_uses_it_and_gives_the_same_map(monkeypatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    net[1].running_var.uniform_(0.5, 2)
    model = cs.wrap(net.eval(), cs.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), labels=["a", "b"])
    x = torch.rand(2, 3, 8, 8)
    calls = ("saliency", "guided-backprop", "grad-cam(layer=1)", "integrated-gradients(steps=3)")
    wanted = [cs.explain(model, x, call, cs.ClassScore(0)).maps for call in calls]
    function = F.batch_norm
    monkeypatch.setattr(batch_norm, "LARGE", 1)
    with model.undisturbed():
        assert net[1](torch.rand(1, 4, 8, 8).requires_grad_()).grad_fn.name() == "ScaledBackBackward"
    assert F.batch_norm is function
    for call, maps in zip(calls, wanted, strict=True):
        torch.testing.assert_close(cs.explain(model, x, call, cs.ClassScore(0)).maps, maps, rtol=1e-5, atol=1e-7)
