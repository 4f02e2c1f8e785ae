"""The guard puts everything back, whatever fails on the way; and takes what torch.jit, export, fx and compile made."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.diagnosis import inspect
from clearsight.core import guard, surroundings
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.undoing import undone
from clearsight.errors import Refused
from clearsight.internals.capture import capture

# nets of the traps add a residual by hand, so that everything passes through their first layer and no later one
pytestmark = pytest.mark.filterwarnings("ignore:the layer that is read is first. :clearsight.errors.Notice")


PRE = Preprocess((12, 16), (0.5,) * 3, (0.25,) * 3)
HOOKS = [n for n in vars(nn.Module()) if "hook" in n]


class Boom(Exception):  # noqa: N818
    """What the tests let fail."""


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    g = torch.Generator().manual_seed(1)
    net[1].running_mean, net[1].running_var = torch.rand(6, generator=g) - 0.5, torch.rand(6, generator=g) + 0.5
    return net.eval()


def used() -> nn.Module:
    """A network in mixed modes, with gradients, hooks, frozen and shared parameters."""
    net = nn.Module()
    net.body, net.again = plain(), nn.Linear(6, 3)
    net.again.weight = net.body[7].weight  # shared by two modules
    net.train()
    net.body[1].eval()
    net.body[0].weight.requires_grad_(False)
    for p in net.parameters():
        p.grad = torch.full_like(p, 0.5)
    net.body[2].register_forward_hook(lambda m, i, o: None)
    net.forward = lambda x: net.body(x) + net.again.bias
    return net


def state(net: nn.Module) -> dict[str, Any]:
    """Everything that a user could notice, each thing by its name."""
    found: dict[str, Any] = {
        "default type": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "checkpoint": torch.utils.checkpoint.CheckpointFunction.apply,
        "depth": getattr(surroundings.this_thread, "depth", 0),
        "inside": surroundings.inside_count,
    }
    for name, m in net.named_modules():
        found[f"mode of {name}"] = m.training
        for kind in ("_parameters", "_buffers", "_modules"):
            found[f"{kind} of {name}"] = [(k, id(v)) for k, v in getattr(m, kind).items()]
        found |= {f"{k} of {name}": dict(v) for k, v in vars(m).items() if k in HOOKS and hasattr(v, "keys")}
    for name, p in net.named_parameters():
        found |= {f"requires_grad of {name}": p.requires_grad, f"grad of {name}": id(p.grad)}
        found[f"place of {name}"] = p.data_ptr()
    found |= {f"value of {name}": b.tolist() for name, b in net.named_buffers()}
    return found


def differing(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [name for name in {**was, **now} if was.get(name) != now.get(name)]


def disturb(net: nn.Module) -> None:
    """What a careless method could do, to every kind of thing."""
    for p in list(net.parameters()):
        p.requires_grad_(not p.requires_grad)
        p.grad = None
    for b in net.buffers():
        b.add_(1)
    for m in list(net.modules()):
        m.training = True
        m.register_forward_hook(lambda m, i, o: None)
    net.body[0].bias = nn.Parameter(torch.zeros(6))
    net.body[1].running_mean = torch.zeros(6)
    net.body[4] = nn.Tanh()


class Failing:
    """A function whose nth call, once it is armed, fails before it does anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, only: str, nth: int) -> None:
        right, self.calls, self.armed = getattr(owner, name), 0, False

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.armed and (not only or only in args):
                self.calls += 1
                if self.calls == nth:
                    raise Boom(f"{name} {nth}")
            return right(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)


def outside() -> None:
    """What a step that was made to fail has left of the process's settings is set back."""
    surroundings.inside_count, surroundings.this_thread.depth = 0, 0
    assert undone(surroundings.process_undo) == []


OPERATIONS: dict[str, tuple[Any, str, str]] = {
    "training is set": (nn.Module, "__setattr__", "training"),
    "requires_grad_": (Tensor, "requires_grad_", ""),
    "buffers are copied": (torch, "cat", ""),
    "a buffer is filled": (Tensor, "copy_", ""),
    "a buffer is compared": (torch, "equal", ""),
    "a buffer is put back": (guard, "refill", ""),
    "a dictionary is put back": (guard, "_put_back", ""),
    "hooks are put back": (guard, "_remove_new_hooks", ""),
    "data is put back": (guard, "_restore_data", ""),
    "a compiled part": (guard, "_uncompile", ""),
    "surroundings": (surroundings, "enter", ""),
    "of the process, in": (surroundings, "_enter_process", ""),
    "of the process, out": (surroundings, "_leave_process", ""),
    "depth": (surroundings, "_one_less", ""),
    "the default type": (torch, "set_default_dtype", ""),
    "the default type is looked at": (surroundings, "_float32", ""),
    "compiled code": (surroundings, "_as_written", ""),
    "checkpointing": (surroundings, "_without_checkpointing", ""),
}
ONLY_IN = {
    "a compiled part", "surroundings", "of the process, in", "the default type is looked at",
    "compiled code", "checkpointing",
}  # fmt: skip
ONLY_OUT = {
    "a buffer is filled", "a buffer is compared", "a buffer is put back", "a dictionary is put back",
    "hooks are put back", "data is put back", "of the process, out", "depth",
}  # fmt: skip
# of these steps each sets back several of the things that state() tells apart
SEVERAL = {"hooks are put back": 3, "a dictionary is put back": 4, "of the process, out": 3}


def leave(net: nn.Module, fault: Failing, wrong: Exception | None) -> None:
    """The network disturbed inside the guard, which a step fails to put back; wrong: also fail there, by this."""
    with guard.guarded(net):
        disturb(net)
        fault.armed = True
        if wrong is not None:
            raise wrong


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("wrong", [None, KeyError("of the body")], ids=["fine", "body fails"])
def test_whatever_step_back_fails_all_the_others_are_taken(
    name: str, wrong: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nth in range(1, 100):
        net = used()
        with default_type(torch.float64), monkeypatch.context() as patched:
            was = state(net)
            fault = Failing(patched, *OPERATIONS[name], nth)
            with pytest.raises(Exception) as raised:  # noqa: PT011 (looked at below)
                leave(net, fault, wrong)
            now = state(net)
            patched.undo()
            outside()
        failed = fault.calls >= nth
        broken = differing(was, now)
        assert len(broken) <= failed * SEVERAL.get(name, 1), broken
        if wrong is not None:
            assert raised.value is wrong  # not masked by what fails afterwards
            assert any("Boom" in n for n in getattr(wrong, "__notes__", [])) == failed
            wrong.__notes__ = []
        else:
            assert isinstance(raised.value, Boom if failed else RuntimeError)  # disturb() leaves hooks
        if not failed:
            break
    assert (nth > 1) == (name not in ONLY_IN), f"{name}: {nth}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_exception_on_the_way_in_leaves_nothing_changed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for nth in range(1, 100):
        net = used()
        with default_type(torch.float64), monkeypatch.context() as patched:
            was, entered = state(net), False
            fault = Failing(patched, *OPERATIONS[name], nth)
            fault.armed = True
            try:
                with guard.guarded(net):
                    entered = True
            except Boom:
                assert entered or differing(was, state(net)) == []
            patched.undo()
            outside()
        if entered:  # what failed, if anything, failed on the way out
            break
    assert (nth > 1) == (name not in ONLY_OUT), f"{name}: {nth}"


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    was = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(was)


class Stiff(nn.ReLU):
    """A module that cannot be told its mode, from the second time on."""

    told = 0

    @property
    def training(self) -> bool:
        return self.told != 2

    @training.setter
    def training(self, _mode: bool) -> None:
        self.told += 1
        if self.told > 2:
            raise Boom("the mode is stuck")


def test_a_module_that_refuses_its_mode_is_reported_and_the_rest_is_put_back() -> None:
    net = plain().train()
    net.insert(3, Stiff())
    net[3].told = 1
    was = state(net)
    with pytest.raises(Boom, match="stuck"):
        cs.explain(Classifier(net, PRE, tuple("abc")), torch.rand(2, 3, 12, 16), "saliency")
    assert differing(was, state(net)) == []


def test_a_keyboard_interrupt_while_it_is_put_back_still_puts_back_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    net = used()
    was, right = state(net), guard.refill

    def interrupted(buffer: Tensor, value: Tensor) -> None:
        if buffer.dim() == 0:
            raise KeyboardInterrupt
        right(buffer, value)

    monkeypatch.setattr(guard, "refill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leave(net, Failing(monkeypatch, guard, "able", "", 0), None)
    assert differing(was, state(net)) == ["value of body.1.num_batches_tracked"]


def test_submodules_that_were_exchanged_come_back() -> None:
    net = plain()
    head = net[7]
    with guard.guarded(net):
        net[7] = nn.Identity()
        net.add_module("more", nn.Identity())
    assert net[7] is head
    assert "more" not in net._modules


def test_what_a_module_is_given_where_there_was_none_is_taken_away() -> None:
    net = plain()
    relu = net[2]
    with Classifier(net, PRE, ("a", "b", "c")).undisturbed():
        relu.register_buffer("held", torch.ones(2))
        relu.inner = nn.Linear(2, 2)
        relu.weight = nn.Parameter(torch.ones(1))
    assert [relu._buffers, relu._modules, relu._parameters] == [{}, {}, {}]


def test_data_that_was_exchanged_is_put_back_and_still_an_error() -> None:
    net = plain()
    weight, at, values = net[7].weight, net[7].weight.data_ptr(), net[7].weight.tolist()
    model = cs.wrap(net, PRE, list("abc"))
    with pytest.raises(RuntimeError, match=r"parameters were changed: 7\.weight"), model.undisturbed():
        weight.data = torch.zeros(3, 6)
    assert weight.data_ptr() == at
    assert weight.tolist() == values


# what torch makes of networks


def quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return make()


def traced(net: nn.Module) -> nn.Module:
    return quietly(lambda: torch.jit.trace(net, torch.rand(2, 3, 12, 16)))


class Around(nn.Module):
    """A network whose convolutions are in one part, made by a tool, and whose head is not."""

    def __init__(self, tool: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        net = plain()
        self.part, self.rest = tool(net[:5]), net[5:]

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.part(x))


def exported(net: nn.Module) -> nn.Module:
    batch = torch.export.Dim("batch", min=1)
    made = torch.export.export(net, (torch.rand(2, 3, 12, 16),), dynamic_shapes=({0: batch},))
    return made.module()


def in_place_compiled(net: nn.Module) -> nn.Module:
    net.compile(backend="eager")
    return net


class CompiledFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.run = torch.compile(self.net.forward, backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


MADE: dict[str, tuple[Callable[[], nn.Module], str]] = {  # and why layers cannot be read, "" where they can
    "traced": (lambda: traced(plain()), "is TorchScript"),
    "scripted": (lambda: quietly(lambda: torch.jit.script(plain())), "is TorchScript"),
    "a traced part": (lambda: Around(traced), "its part part is TorchScript"),
    "a scripted part": (lambda: quietly(lambda: Around(torch.jit.script)), "its part part is TorchScript"),
    "exported": (lambda: quietly(lambda: exported(plain())), "recorded the network as single operations"),
    "an fx graph": (lambda: torch.fx.symbolic_trace(plain()), ""),
    "parallel": (lambda: nn.DataParallel(plain()), ""),
    "compiled": (lambda: torch.compile(plain(), backend="eager"), ""),
    "a compiled part": (lambda: Around(lambda net: torch.compile(net, backend="eager")), ""),
    "compiled in place": (lambda: in_place_compiled(plain()), ""),
    "a compiled function": (CompiledFunction, ""),
}
CALLS = {
    "saliency": False, "occlusion(window=6, stride=6)": False, "integrated-gradients(steps=4)": False,
    "rise(masks=12)": False, "lime(samples=12)": False, "grad-cam": True, "score-cam": True, "lrp": True,
    "deep-lift": True, "guided-backprop": True,
}  # fmt: skip


def test_nothing_is_compiled_inside_a_call() -> None:
    """Hooks see nothing of what compiled code does, whatever the backend makes of it."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    made = cs.wrap(Around(lambda net: torch.compile(net, backend=backend)), PRE, list("abc"))
    x = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    cs.explain(made, x, "grad-cam", cs.ClassScore(0))
    cs.attack(made, x, torch.zeros(2, dtype=torch.long), "pgd(steps=2)")
    assert not compiled
    made.net(x)
    assert compiled


def test_layers_of_a_compiled_part_are_called_as_before_it_was_compiled() -> None:
    made = cs.wrap(Around(lambda net: torch.compile(net, backend="eager")), PRE, list("abc"))
    plainly = cs.wrap(Around(lambda net: net), PRE, list("abc"))
    x = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    found, wanted = (cs.explain(m, x, "grad-cam(layer=part.4)", cs.ClassScore(0)) for m in (made, plainly))
    torch.testing.assert_close(found.maps, wanted.maps)


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.filterwarnings("ignore:.*TorchScript.*", "ignore:.*torch.jit.*")
def test_what_torch_made_of_a_network_is_explained_as_the_network_is_or_refused_by_name(kind: str) -> None:
    make, why = MADE[kind]
    net = make()
    made, right = cs.wrap(net, PRE, list("abc")), cs.wrap(plain(), PRE, list("abc"))
    x = torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    for p in net.parameters():
        p.requires_grad_(True)
    was = [net.training, *(p.requires_grad for p in net.parameters())]
    for call, layers in CALLS.items():
        taken_apart = kind in ("exported", "an fx graph") and "cam" not in call
        if layers and why and not taken_apart:
            with pytest.raises(Refused, match=f"{why}.*wrap the nn.Module that it was made from"):
                cs.explain(made, x, call, cs.ClassScore(0))
        else:
            found, wanted = (cs.explain(m, x, call, cs.ClassScore(0)) for m in (made, right))
            torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-4, atol=1e-6)
            assert (found.forwards, found.backwards) == (wanted.forwards, wanted.backwards)
        assert [net.training, *(p.requires_grad for p in net.parameters())] == was
    for call in ("pgd(steps=3)", "square(queries=20)"):
        found_, wanted_ = (cs.attack(m, x, torch.tensor([0, 1, 2]), call, eps=0.1) for m in (made, right))
        torch.testing.assert_close(found_.x, wanted_.x)
        assert found_.queries == wanted_.queries
    told = [p.what for p in inspect(made).problems]
    assert all("running the network disturbs it" not in what and "failed" not in what for what in told)
    assert any(why in what for what in told) if why else not told


@pytest.mark.parametrize("layer", ["part", "part.0", "part.3"])
def test_a_layer_in_torchscript_is_refused_by_name_wherever_one_can_be_named(layer: str) -> None:
    model, x = cs.wrap(Around(traced), PRE, list("abc")), torch.rand(3, 3, 12, 16)
    for name in ("grad-cam", "score-cam", "relevance-cam", "eigen-cam"):
        with pytest.raises(Refused, match="its part part is TorchScript"):
            cs.explain(model, x, f"{name}(layer={layer})", cs.ClassScore(0))
    with model.undisturbed(), pytest.raises(Refused, match="its part part is TorchScript"):
        capture(model, x, layer)


@pytest.mark.parametrize("tool", [torch.jit.freeze, lambda net: torch.jit.optimize_for_inference(net)])
def test_frozen_torchscript_is_refused_when_it_is_wrapped(tool: Callable[[Any], Any]) -> None:
    net = quietly(lambda: tool(traced(plain())))
    with pytest.raises(
        Refused, match=r"the network was frozen by torch\.jit\.freeze.*wrap the network that was frozen"
    ):
        cs.wrap(net, PRE, list("abc"))
    with pytest.raises(Refused, match=r"frozen by torch\.jit\.freeze"):
        cs.explain(Classifier(net, PRE, tuple("abc")), torch.rand(2, 3, 12, 16), "saliency")


@pytest.mark.parametrize("record", [traced, exported])
@pytest.mark.parametrize("layer", ["norm", "dropout"])
def test_what_was_recorded_in_training_mode_is_refused_when_it_is_wrapped(record: Any, layer: str) -> None:
    net = plain()
    (net[1] if layer == "norm" else net).train()
    if layer == "dropout":
        net[1].eval()
        net[4] = nn.Dropout(0.5)
    recorded = quietly(lambda: record(net) if record is exported else torch.jit.trace(
        net, torch.rand(2, 3, 12, 16), check_trace=False
    ))  # fmt: skip
    with pytest.raises(Refused, match=r"in training mode, and stays in it: call net\.eval\(\) and record"):
        cs.wrap(recorded, PRE, list("abc"))


@pytest.mark.filterwarnings("ignore:.*TorchScript.*", "ignore:.*torch.jit.*")
def test_a_scripted_network_in_training_mode_is_run_in_eval_mode_and_given_back() -> None:
    net = quietly(lambda: torch.jit.script(plain().train()))
    x = torch.rand(3, 3, 12, 16)
    found = cs.explain(cs.wrap(net, PRE, list("abc")), x, "saliency", cs.ClassScore(0))
    right = cs.explain(cs.wrap(plain(), PRE, list("abc")), x, "saliency", cs.ClassScore(0))
    torch.testing.assert_close(found.maps, right.maps)
    assert net.training


def test_what_was_compiled_before_is_still_compiled_afterwards() -> None:
    ran: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        return lambda *args: (ran.append(1), graph.forward(*args))[1]

    net = Around(lambda net: torch.compile(net, backend=backend))
    compiled = net.part
    model = cs.wrap(net, PRE, list("abc"))
    x = torch.rand(2, 3, 12, 16)
    cs.explain(model, x, "grad-cam", cs.ClassScore(0))
    assert net.part is compiled
    assert ran == []  # no hook of ours is left in compiled code
    with torch.no_grad():
        net(x)
    assert ran
    assert model.fingerprint() == cs.wrap(Around(lambda net: net), PRE, list("abc")).fingerprint()


def test_an_export_for_one_batch_size_is_refused_and_its_advice_helps() -> None:
    z = torch.rand(2, 3, 12, 16)
    fixed = quietly(lambda: torch.export.export(plain(), (z,)).module())
    with pytest.raises(Refused, match=r"that one number of pictures.*dynamic_shapes") as e:
        cs.explain(cs.wrap(fixed, PRE, list("abc")), torch.rand(3, 3, 12, 16), "saliency")
    given = eval(str(e.value).rpartition("dynamic_shapes=")[2], {"torch": torch})
    free = quietly(lambda: torch.export.export(plain(), (z,), dynamic_shapes=given).module())
    assert cs.explain(cs.wrap(free, PRE, list("abc")), torch.rand(3, 3, 12, 16), "saliency").maps.shape == (3, 12, 16)


def test_large_buffers_and_small_ones_come_back_with_their_values() -> None:
    net = plain()
    net.register_buffer("large", torch.arange(40_000.0))
    net.register_buffer("small", torch.arange(6).reshape(2, 3).t())
    with guard.guarded(net):
        net.large.data.zero_()
        net.small.data.zero_()
    assert torch.equal(net.large, torch.arange(40_000.0))
    assert torch.equal(net.small, torch.arange(6).reshape(2, 3).t())
