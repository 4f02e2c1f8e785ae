"""What modules hold is known again without being worked out, every change is seen, and no part lives longer for it."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

import clearsight as cs
from clearsight.core import contents as contents_of
from clearsight.core.contents import contents, settled_contents
from clearsight.core.guard import guarded
from clearsight.core.module_names import modules_of
from clearsight.core.settled import settled


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    net[0].add_module("again", net[0][2])  # one module with two names
    net[0].register_parameter("shared", net[3].bias)
    net[0].register_buffer("nothing", None)
    return net.eval()


def alike(net: nn.Module) -> None:
    """It is what torch says of the network."""
    held = contents(net)
    assert modules_of(net) == held.called == [*net.named_modules()]
    assert {*map(id, held.modules)} == {*map(id, net.modules())}
    assert sorted(map(id, held.parameters)) == sorted(map(id, net.parameters()))
    assert sorted(map(id, held.buffers)) == sorted(map(id, net.buffers()))


def exchanged(net: nn.Sequential) -> None:
    net[0][0] = nn.Conv2d(3, 4, 5)


def reordered(net: nn.Sequential) -> None:
    parts = dict(net._modules)
    net._modules.clear()
    net._modules.update(reversed(parts.items()))


def own_again(net: nn.Sequential) -> None:
    net[0].shared = nn.Parameter(torch.zeros(2))


def another_dictionary(net: nn.Sequential) -> None:
    net[3].__dict__["_parameters"] = {"weight": nn.Parameter(torch.zeros(2, 4))}


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "a module exchanged": exchanged,
    "a module taken away": lambda net: net[0]._modules.pop("again"),
    "a module added inside": lambda net: net[3].add_module("inside", nn.Linear(2, 2)),
    "modules in another order": reordered,
    "a parameter added": lambda net: net[2].register_parameter("more", nn.Parameter(torch.zeros(1))),
    "a parameter by itself": own_again,
    "a parameter taken away": lambda net: setattr(net[3], "bias", None),
    "a buffer where there was none": lambda net: setattr(net[0], "nothing", torch.zeros(1)),
    "another dictionary": another_dictionary,
}


@pytest.mark.parametrize("name", CHANGES)
def test_contents_are_those_of_now(name: str) -> None:
    net = network()
    alike(net)
    before = contents(net).structure
    assert contents(net).structure is before
    CHANGES[name](net)
    assert (contents(net).structure.key != before.key) == (name != "a module exchanged")
    alike(net)


def test_a_call_works_out_nothing_again_and_looks_at_a_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cs.wrap(network(), cs.Preprocess(12, (0.5,) * 3, (0.5,) * 3), ["a", "b"])
    x, y = torch.rand(2, 3, 12, 12), torch.tensor([0, 1])
    seen: list[str] = []

    def count(name: str) -> None:
        right = getattr(contents_of, name)
        monkeypatch.setattr(contents_of, name, lambda *args: seen.append(name) or right(*args))

    count("_structure_of")
    count("_held_by")
    for call in (lambda: cs.explain(model, x, "grad-cam"), lambda: cs.attack(model, x, y, "pgd(steps=1)")):
        call()
        seen.clear()
        call()
        assert seen == ["_held_by"]  # by the guard, which tells all that ask while it is settled


def test_while_it_is_settled_a_network_is_looked_at_once() -> None:
    net = network()
    with settled(net):
        assert settled_contents(net) is settled_contents(net)
    assert settled_contents(net) is not settled_contents(net)


def test_parts_that_the_guard_unwrapped_are_looked_at_again() -> None:
    net = network()
    part = net[0]
    net[0] = torch.compile(part, backend="eager")
    with settled(net), guarded(net):
        assert net[0] is part
        assert {*map(id, settled_contents(net).modules)} == {*map(id, net.modules())}


def test_what_is_known_of_a_network_keeps_no_part_of_it() -> None:
    net = network()
    contents(net)
    part = weakref.ref(net[0][0])
    exchanged(net)
    gc.collect()
    assert part() is None
    whole = weakref.ref(net)
    del net
    gc.collect()
    assert whole() is None
