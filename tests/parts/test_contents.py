"""What modules hold is known again without being worked out, every change is seen, and no part lives longer for it."""

import gc
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
import torch
from torch import nn

import clearsight as cs
from clearsight.core import contents as contents_of
from clearsight.core.contents import contents, settled_contents
from clearsight.core.guard import guarded
from clearsight.core.module_names import modules_of
from clearsight.core.settled import settled
from clearsight.core.weight_digest import weight_digest


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


def renamed(net: nn.Sequential) -> None:
    own = net[3]._parameters
    net[3].__dict__["_parameters"] = {"weight": own["weight"], "offset": own["bias"]}


def renamed_there(net: nn.Sequential) -> None:
    own = net[3]._parameters
    own["offset"] = own.pop("bias")


def moved(net: nn.Sequential) -> None:
    """The last of one dictionary is the first of the next: the same names and values, one after the other."""
    own = dict(net[3]._parameters)
    net[3]._parameters.clear()
    net[3]._parameters.update(shared=net[0]._parameters.pop("shared"), **own)


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
    "a parameter renamed": renamed,
    "a parameter renamed in its dictionary": renamed_there,
    "a parameter moved on": moved,
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


@pytest.mark.parametrize("name", [n for n in CHANGES if CHANGES[n] not in (another_dictionary, renamed)])
def test_what_is_changed_in_a_dictionary_is_put_back(name: str) -> None:
    net = network()
    before = contents(net)
    with guarded(net):
        CHANGES[name](net)
        assert not before.is_unchanged
    assert before.is_unchanged
    assert contents(net).structure is before.structure


def steps(net: nn.Module) -> Counter[str]:
    """How many functions of Python are called to guard a network and to tell its weights a second time, by file."""
    found: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.parts[-3:-1] == ("clearsight", "core"):
            found[file.name] += 1

    def work() -> None:
        with settled(net), guarded(net):
            weight_digest(net)

    work()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def test_the_guard_takes_as_many_steps_in_python_whatever_the_number_of_modules() -> None:
    """Each function of Python for each module would cost more than the pass of a small network."""
    block = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()
    few, many = (nn.Sequential(*(nn.Sequential(*block) for _ in range(n))) for n in (2, 2))
    for i in range(20):
        many.append(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()))
        many[-1].register_buffer(f"own_{i}", torch.zeros(2))
    few[0].register_buffer("own", torch.zeros(2))
    for net in (few, many):
        net.eval().requires_grad_(False)
    assert {"guard.py", "contents.py", "weight_digest.py", "small_tensors.py"} <= steps(few).keys()
    assert steps(many) == steps(few)


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
