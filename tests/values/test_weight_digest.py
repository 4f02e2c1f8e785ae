"""Every change of a network's weights is noticed, however it is made, and what stays is not worked out again."""

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.core import rng
from clearsight.core.settled import settled, tell, while_settled
from clearsight.core.small_tensors import grouping
from clearsight.core.weight_digest import weight_digest

PRE = cs.Preprocess(12, (0.5,) * 3, (0.5,) * 3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    net.register_buffer("table", torch.arange(40_000.0), persistent=False)
    net.register_buffer("steps", torch.tensor(3))
    return net.eval()


def model_of(net: nn.Module) -> cs.Classifier:
    return cs.wrap(net, PRE, list("abcd"))


def by_numpy(t: Tensor) -> None:
    t.detach().numpy().flat[1] += 1e-3


def through_data(t: Tensor) -> None:
    t.data.view(-1)[1] += 1e-3


def swap_two(t: Tensor) -> None:
    flat = t.data.view(-1)
    flat[:2] = flat[:2].flip(0)


def other_values(t: Tensor) -> None:
    t.data = t.data + 1e-3


def of_a_parameter(change: Callable[[Tensor], None]) -> Callable[[nn.Sequential], None]:
    return lambda net: change(net[0].weight)


def swap_modules(net: nn.Sequential) -> None:
    net[0], net[1] = net[1], net[0]


CHANGES: dict[str, Callable[[Any], object]] = {
    "through .data": of_a_parameter(through_data),
    "by NumPy": of_a_parameter(by_numpy),
    "two values swapped": of_a_parameter(swap_two),
    ".data exchanged": of_a_parameter(other_values),
    "a small parameter": lambda net: through_data(net[5].bias),
    "another parameter": lambda net: setattr(net[5], "bias", nn.Parameter(net[5].bias + 1)),
    "a parameter taken away": lambda net: setattr(net[5], "bias", None),
    "another shape": lambda net: setattr(net[5], "weight", nn.Parameter(net[5].weight.detach().reshape(8, 4))),
    "another type": lambda net: net[5].double(),
    ".data in another shape": lambda net: setattr(net[5].weight, "data", net[5].weight.data.reshape(8, 4)),
    ".data of another type": lambda net: setattr(net[1].running_var, "data", net[1].running_var.view(torch.int32)),
    "a buffer": lambda net: by_numpy(net[1].running_mean),
    "a buffer of one number": lambda net: net.steps.data.add_(1),
    "a buffer that is not saved": lambda net: by_numpy(net.table),
    "an exchanged buffer": lambda net: setattr(net[1], "running_var", net[1].running_var * 2),
    "two modules swapped": swap_modules,
    "another name": lambda net: net.add_module("last", net._modules.pop("5")),
    "another name of a parameter": lambda net: net[5].register_parameter("shift", net[5]._parameters.pop("bias")),
    "a second name": lambda net: net.add_module("again", net[5]),
}
NOT_SAVED = ("a buffer that is not saved", "another shape")


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_weights_changes_the_digest(name: str) -> None:
    net = network()
    before = weight_digest(net)
    assert weight_digest(copy.deepcopy(net)) == before
    CHANGES[name](net)
    after = weight_digest(net)
    assert after != before
    assert weight_digest(copy.deepcopy(net)) == after


@pytest.mark.parametrize("name", [n for n in CHANGES if n not in NOT_SAVED])
def test_the_fingerprint_is_that_of_the_weights_as_they_are_now(name: str) -> None:
    model = model_of(network())
    first = model.fingerprint()
    CHANGES[name](model.net)
    now = model.fingerprint()
    assert now != first
    assert now == model_of(copy.deepcopy(model.net)).fingerprint()


def test_the_fingerprint_is_hashed_once_while_the_weights_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = model_of(network()), torch.rand(2, 3, 12, 12)
    hashed: list[object] = []
    right = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda: hashed.append(1) or right())
    found = [cs.explain(model, x, "saliency").fingerprint for _ in range(3)]
    assert len({*found}) == len(hashed) == 1
    with torch.no_grad():
        model.net[5].bias += 1
    assert cs.explain(model, x, "saliency").fingerprint == model.fingerprint() not in found
    assert len(hashed) == 2


@pytest.mark.parametrize("name", ["through .data", "a small parameter", "a buffer", "an exchanged buffer"])
def test_maps_are_those_of_the_weights_as_they_are_now(name: str) -> None:
    model, x = model_of(network()), torch.rand(2, 3, 12, 12)
    target = cs.ClassScore(1)
    cs.explain(model, x, "lrp", target)
    CHANGES[name](model.net)
    fresh = cs.explain(model_of(copy.deepcopy(model.net)), x, "lrp", target).maps
    torch.testing.assert_close(cs.explain(model, x, "lrp", target).maps, fresh, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.bool])
def test_values_of_every_type_are_seen(dtype: torch.dtype) -> None:
    net = nn.Module()
    net.register_buffer("values", torch.zeros(2, 3).to(dtype).t())
    before = weight_digest(net)
    net.values.data[2, 1] = 1
    assert weight_digest(net) != before


def test_weights_without_bytes_to_read_are_known_by_how_often_they_were_written_to() -> None:
    net = nn.Module()
    net.register_buffer("values", torch.eye(3).to_sparse())
    before = weight_digest(net)
    assert weight_digest(net) == before
    net.values.mul_(2)
    assert weight_digest(net) != before


def test_while_it_is_settled_a_network_is_hashed_once_and_another_is_not_taken_for_it() -> None:
    net, other = network(), network()
    with settled(net):
        before = weight_digest(net)
        CHANGES["through .data"](net)
        assert weight_digest(net) is before
        other_before = weight_digest(other)
        CHANGES["through .data"](other)
        assert weight_digest(other) != other_before
        with settled(other):
            assert weight_digest(net) != before
        with settled(net):
            assert weight_digest(net) is before
    assert weight_digest(net) != before


def test_what_is_found_of_a_settled_network_is_found_once() -> None:
    net, found = network(), iter(range(9))
    with settled(net):
        assert [while_settled(net, "a", lambda: next(found)) for _ in range(2)] == [0, 0]
        assert while_settled(net, "b", lambda: next(found)) == 1
    assert [while_settled(net, "a", lambda: next(found)) for _ in range(2)] == [2, 3]


def test_what_is_told_of_a_settled_network_is_taken_where_nothing_was_found_of_it() -> None:
    net, other = network(), network()
    tell(net, "a", 1)  # nobody keeps it
    with settled(net):
        tell(other, "a", 2)
        tell(net, "a", 3)
        tell(net, "a", 4)
        assert while_settled(net, "a", lambda: 5) == 3
        assert while_settled(other, "a", lambda: 5) == 5


def test_tensors_go_together_as_before_where_they_lie_as_before() -> None:
    tensors = [torch.zeros(2), torch.ones(3, 2), torch.tensor(4), torch.zeros(2**15), torch.tensor(5)]
    known = grouping(tensors)
    assert (known.groups, known.others) == (((0, 1), (2, 4)), (3,))
    assert [t.tolist() for t in known.joined(tensors)] == [[0, 0, 1, 1, 1, 1, 1, 1], [4, 5]]
    assert grouping([t + 1 for t in tensors], known) is known
    assert grouping([torch.zeros(2, dtype=torch.int64), *tensors[1:]], known).groups == ((0, 2, 4), (1,))
    elsewhere = [t.to("meta") for t in tensors]  # on another device than the CPU it is asked anew on which
    first = grouping(elsewhere)
    assert grouping(elsewhere, first) == first
    assert grouping(elsewhere, first) is not first


def test_draws_of_pictures_that_were_changed_meanwhile_are_an_error() -> None:
    x = torch.rand(2, 3, 4, 4)
    with rng.seeded(0, x):
        before = rng.uniform(x)
        x.add_(1)
        assert rng.uniform(x).shape == before.shape  # the generators were made before
    with rng.seeded(0, x):
        x.add_(1)
        with pytest.raises(RuntimeError, match="work on a clone"):
            rng.uniform(x)
