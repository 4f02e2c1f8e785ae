"""Linear layers by oneDNN in passes without a way back."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.core.blackbox import BlackBox
from clearsight.core.classifier import wrap
from clearsight.core.preprocess import Preprocess
from clearsight.core.quick_linear import PRODUCTS, ROWS, pays, quick_linear
from clearsight.core.targets import Misclassify

OPERATION = "mkldnn._linear_pointwise.default"
HAS_IT = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") and torch.backends.mkldnn.is_available()
needs_it = pytest.mark.skipif(not HAS_IT, reason="PyTorch was built without oneDNN, or for another processor")


class Operations(TorchDispatchMode):
    """The names of the operations that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **kwargs or {})


class Own(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(256, 128).requires_grad_(False)


def calls(run: nn.Module, x: Tensor) -> tuple[Tensor, bool]:
    """What a network gives inside, and whether any of its layers went by oneDNN's operation."""
    with quick_linear(run), Operations() as seen:
        out = run(x)
    return out, OPERATION in seen.names


@needs_it
def test_large_products_go_by_onednn_and_are_the_same_up_to_rounding(layer):
    x = torch.rand(2, 40, 256)
    usual = layer(x)
    found, by_it = calls(layer, x)
    assert by_it
    torch.testing.assert_close(found, usual, rtol=0, atol=2e-6 * float(usual.abs().max()))
    assert "forward" not in vars(layer)


@needs_it
@pytest.mark.parametrize("bias", [True, False])
def test_with_and_without_a_bias(bias):
    layer, x = nn.Linear(256, 128, bias=bias).requires_grad_(False), torch.rand(64, 256)
    found, by_it = calls(layer, x)
    assert by_it
    torch.testing.assert_close(found, layer(x), rtol=0, atol=1e-5)


def test_what_stays_as_it_is(layer):
    """Small products, a gradient that is wanted, other types, other strides, one row without an axis, a transform."""
    x = torch.rand(64, 256)
    own = Own(256, 128).requires_grad_(False)
    for net, z in (
        (layer, x[: ROWS - 1]),
        (layer, x[:8]),
        (layer, x.clone().requires_grad_()),
        (copy.deepcopy(layer).double(), x.double()),
        (own, x),
    ):
        wanted = net(z)
        found, by_it = calls(net, z)
        assert not by_it
        assert torch.equal(found, wanted)
    assert not calls(layer, torch.rand(256, 64).T)[1]
    assert not calls(layer, x[0])[1]
    with quick_linear(layer):
        assert torch.func.vmap(layer)(torch.rand(2, 64, 256)).shape == (2, 64, 128)


def test_how_much_is_enough():
    weight = torch.zeros(2**10, 2**8)
    assert pays(torch.zeros(ROWS, 2**8), weight)
    assert not pays(torch.zeros(ROWS - 1, 2**8), torch.zeros(2**16, 2**8))
    assert not pays(torch.zeros(ROWS, 2**8), weight[:-1])
    assert ROWS * weight.numel() == PRODUCTS


@needs_it
def test_a_black_box_answers_by_it():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 3)).eval()
    model, x = wrap(net, Preprocess(16, (0.0,), (1.0,)), labels=["a", "b", "c"]), torch.rand(64, 1, 16, 16)
    box = BlackBox(model, x, Misclassify(torch.zeros(64, dtype=torch.long)), eps=1.0)
    with torch.no_grad():
        wanted = Misclassify(torch.zeros(64, dtype=torch.long)).margin(model(x))
    with Operations() as seen:
        loss, _ = box.ask(x, torch.arange(64))
    assert OPERATION in seen.names
    torch.testing.assert_close(loss, wanted, rtol=0, atol=2e-6)
