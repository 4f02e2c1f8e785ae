"""Targets that are one output: their slope is that of a way back, without one."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from clearsight.core.targets import ClassScore, Margin, Target
from clearsight.errors import Refused
from clearsight.explainers.common.completeness import size_of
from clearsight.explainers.common.one_output import one_output, slope_of_one


@dataclass(frozen=True, eq=False, init=False)
class Doubled(ClassScore):
    """A class of its own, which says itself what it is."""

    def __call__(self, outputs: Tensor) -> Tensor:
        return 2 * super().__call__(outputs)


def outputs() -> Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def way_back(target: Target, z: Tensor) -> Tensor:
    free = z.clone().requires_grad_()
    (g,) = torch.autograd.grad(target(free).sum(), free)
    return g


@pytest.mark.parametrize("of", ["logit", "value"])
@pytest.mark.parametrize("index", [2, [1, 3, 0]])
def test_the_slope_of_one_output_is_1_there_and_0_at_all_others(of, index):
    z, target = outputs(), ClassScore(index, of)
    slope = slope_of_one(target, z)
    assert slope is not None
    assert torch.equal(slope, way_back(target, z))
    assert one_output(target, z).tolist() == torch.tensor(index).expand(3).tolist()


def test_the_size_of_one_output_is_that_of_the_largest():
    z, before = outputs(), outputs().flip(0) * 2
    assert torch.equal(size_of(ClassScore(2), z, before), torch.maximum(z.abs().amax(1), before.abs().amax(1)))
    doubled = size_of(Doubled(2), z, before)  # by a way back
    torch.testing.assert_close(doubled, 2 * size_of(ClassScore(2), z, before))


@pytest.mark.parametrize("target", [ClassScore(1, "prob"), ClassScore(1, "sigmoid"), Margin(1, 2), Doubled(1)])
def test_any_other_target_is_asked_by_a_way_back(target):
    assert one_output(target, outputs()) is None
    assert slope_of_one(target, outputs()) is None


def test_classes_that_there_are_not_are_refused():
    with pytest.raises(Refused, match="class 4"):
        slope_of_one(ClassScore(4), outputs())
