"""Many passes through a folded network whose pictures lie with their channels last: the same outputs and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.explainers.common import gradient
from clearsight.explainers.common.gradient import folded_outputs, many_passes, pixel_gradients
from clearsight.internals.graph import Graph
from clearsight.runner.run import explain


class Net(nn.Module):
    """A convolution with BatchNorm, and a head that reads its maps by one way or the other."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 3)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(self.norm(self.conv(x)).relu()))


def _lies_last(z: Tensor) -> bool:
    return z.is_contiguous(memory_format=torch.channels_last)


def by_how_they_lie(maps: Tensor) -> Tensor:
    return torch.as_strided(maps, (len(maps), 144), (144, 1))


@pytest.mark.parametrize(
    ("read", "last"),
    [
        (lambda maps: maps.reshape(len(maps), -1), True),
        (lambda maps: maps.view(len(maps), -1), True),
        (by_how_they_lie, False),
    ],
)
def test_folded_outputs_and_gradients_are_the_networks(
    read: Callable[[Tensor], Tensor], last: bool, monkeypatch
) -> None:
    model = Classifier(Net(read).eval(), Preprocess(8, (0.5,) * 3, (0.25,) * 3), ("a", "b", "c"))
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with model.undisturbed():
        plain, slope = model(x), pixel_gradients(model, x, ClassScore(1))
        with many_passes(model, x, 1000):
            lying_last = []
            run = Graph.__call__
            noted = lambda self, z, rules=None: lying_last.append(_lies_last(z)) or run(self, z, rules)  # noqa: E731
            monkeypatch.setattr(Graph, "__call__", noted)
            torch.testing.assert_close(folded_outputs(model, x), plain, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(pixel_gradients(model, x, ClassScore(1)), slope, rtol=1e-5, atol=1e-5)
            assert lying_last == [last, last]


@pytest.mark.parametrize("method", ["meaningful-perturbation", "extremal-perturbation"])
def test_masks_found_through_the_folded_network_are_those_of_the_network(method: str, monkeypatch) -> None:
    model = Classifier(
        Net(lambda maps: maps.reshape(len(maps), -1)).eval(), Preprocess(8, (0.5,) * 3, (0.25,) * 3), ("a", "b", "c")
    )
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    passes = []
    run = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", lambda self, z, rules=None: passes.append(len(z)) or run(self, z, rules))
    call = f"{method}(iterations=4, cells=4)"
    plain = explain(model, x, call, ClassScore(1)).maps
    passes.clear()
    monkeypatch.setattr(gradient, "WORTH", 1)
    found = explain(model, x, call, ClassScore(1)).maps
    assert passes.count(3) == 4
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
