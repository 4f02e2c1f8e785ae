"""Networks with every trap: maps are right, or refused by name, and the network comes back as it was."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import clearsight as cs
from clearsight.core.catalogue import Call, Method, parse
from clearsight.core.classifier import Classifier, Preprocess
from clearsight.core.copying import plain
from clearsight.errors import Refused
from clearsight.runner.run import resolve

# the nets here add a residual by hand, so that everything passes through their first layer and no later one
pytestmark = pytest.mark.filterwarnings("ignore:the layer that is read is first. :clearsight.errors.Notice")

EXPLAINERS = sorted(cs.catalogue("explainers"))
ATTACKS = sorted(cs.catalogue("attacks"))
NEEDS_A_LINEAR_HEAD = {"needs-a-linear-head"}  # behind the feature maps: none of the nets here has one
FAST = {
    "queries": 40,
    "classes": 2,
    "steps": 4,
    "samples": 12,
    "window": 6,
    "stride": 6,
    "masks": 12,
    "iterations": 6,
    "cells": 3,
    "restarts": 2,
}


def spelled(name: str) -> str:
    """An explainer or an attack with few steps."""
    options = {**cs.catalogue("attacks"), **cs.catalogue("explainers")}[name].options
    return f"{name}({', '.join(f'{k}={v}' for k, v in FAST.items() if k in options)})"


def convs() -> list[nn.Module]:
    """Fresh layers, every time with the same weights: two convolutions, a norm, a head."""
    torch.manual_seed(0)
    made = [nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(6, 3)]
    g = torch.Generator().manual_seed(1)
    made[2].running_mean = torch.rand(6, generator=g) - 0.5
    made[2].running_var = torch.rand(6, generator=g) + 0.5
    return made


class Net(nn.Module):
    """act after each convolution, add where there is a residual, out at the end: each trap changes one of them."""

    def __init__(
        self,
        act: Callable[[Tensor], Tensor] = torch.relu,
        add: Callable[[Tensor, Tensor], Tensor] = torch.add,
        out: Callable[[Tensor], Any] = lambda z: z,
    ) -> None:
        super().__init__()
        self.first, self.second, self.norm, self.head = convs()
        self.act, self.add, self.out = act, add, out

    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        return self.act(self.add(self.norm(self.second(x)), x))

    def forward(self, x: Tensor) -> Any:
        return self.out(self.head(self.features(x).mean((2, 3))))


class Plain(Net):
    """No residual: an in-place ReLU stands right behind the last convolution."""

    def features(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


class Iadd(Net):
    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        y = self.norm(self.second(x))
        y += x
        return self.act(y)


class Blind(Net):
    """A backbone under no_grad: no gradient reaches the pixels."""

    def features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().features(x)


class Half(Net):
    """Only the beginning is under no_grad: layers behind it have gradients, pixels have not."""

    def features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.act(self.first(x))
        return self.act(self.second(x))


class Stubborn(Net):
    """Its norm stays in training mode whatever it is told, through an overridden train()."""

    def train(self, mode: bool = True) -> Stubborn:
        super().train(mode)
        self.norm.train()
        return self


class Dropped(Net):
    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x), 0.5, self.training)


class Counts(Net):
    """Its forward counts in a buffer, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def features(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().features(x)


class Fails(Net):
    """Raises in the middle of forward, at the second call."""

    calls = 0

    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        self.calls += 1
        if self.calls % 2 == 0:
            raise KeyError("no cable")
        return self.act(self.second(x))


def frozen(net: nn.Module) -> nn.Module:
    return net.requires_grad_(False)


def hooked(net: nn.Module) -> nn.Module:
    net.second.register_forward_hook(lambda m, i, o: None)
    net.register_forward_pre_hook(lambda m, i: None)
    net.head.register_full_backward_hook(lambda m, gi, go: None)
    return net


def with_grads(net: nn.Module) -> nn.Module:
    for p in net.parameters():
        p.grad = torch.full_like(p, 0.5)
    return net


def normed(kind: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def apply(net: nn.Module) -> nn.Module:
        torch.manual_seed(5)
        kind(net.second)
        return net

    return apply


def old_weight_norm(m: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(m)


def run_once(net: nn.Module) -> nn.Module:
    """Such a hook computes its weight in a pass, and leaves a tensor with a history."""
    net.eval()(pictures())
    return net


def as_plain_weight(net: nn.Module) -> nn.Module:
    """The same weights as plain tensors: what a parametrized layer must be equal to in eval mode."""
    net.eval()
    with torch.no_grad():
        w = net.second.weight.detach().clone()
    torch.nn.utils.parametrize.remove_parametrizations(net.second, "weight")
    net.second.weight = nn.Parameter(w)
    return net


def add_in_place(a: Tensor, b: Tensor) -> Tensor:
    return a.add_(b)


def model(net: nn.Module, **options: Any) -> Classifier:
    labels = options.pop("labels", ("a", "b", "c"))
    pre = options.pop("preprocess", Preprocess((12, 16), (0.5,) * 3, (0.25,) * 3))
    return Classifier(net, pre, labels, "trap", **options)


def mixed_modes(net: nn.Module) -> nn.Module:
    net.train()
    net.norm.eval()
    return net


# name -> (the net with the trap, an equivalent one without, options for both)
TRAPS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], dict[str, Any]]] = {
    "in-place ReLU module, reused": (lambda: Net(nn.ReLU(inplace=True)), Net, {}),
    "in-place ReLU behind the target convolution": (lambda: Plain(nn.ReLU(inplace=True)), Plain, {}),
    "functional in-place relu": (lambda: Plain(torch.relu_), Plain, {}),
    "one ReLU module for all": (lambda: Net(nn.ReLU()), Net, {}),
    "functional relu": (lambda: Net(F.relu), Net, {}),
    "residual in place": (lambda: Net(nn.ReLU(inplace=True), add_in_place), Net, {}),
    "residual x += y": (lambda: Iadd(nn.ReLU(inplace=True)), Net, {}),
    "SiLU in place": (lambda: Net(nn.SiLU(inplace=True)), lambda: Net(F.silu), {}),
    "tuple": (lambda: Net(out=lambda z: (z * 0 + 7, z)), Net, {"output": 1}),
    "dict": (lambda: Net(out=lambda z: {"aux": z * 0 + 7, "logits": z}), Net, {"output": "logits"}),
    "probabilities": (lambda: Net(out=lambda z: z.softmax(1)), lambda: Net(out=lambda z: z.log_softmax(1)), {}),
    "frozen": (lambda: frozen(Net()), Net, {}),
    "training mode": (lambda: mixed_modes(Net()), lambda: Net().eval(), {}),
    "norm kept in training mode": (lambda: Stubborn().train(), lambda: Net().eval(), {}),
    "a buffer that counts": (Counts, Net, {}),
    "dropout": (lambda: Dropped().train(), Net, {}),
    "hooks of the user's": (lambda: hooked(Net()), Net, {}),
    "gradients of the user's": (lambda: with_grads(Net()), Net, {}),
    "spectral norm": (
        lambda: normed(parametrizations.spectral_norm)(Net()),
        lambda: as_plain_weight(normed(parametrizations.spectral_norm)(Net())),
        {},
    ),
    "weight norm": (lambda: normed(parametrizations.weight_norm)(Net()), Net, {}),
    "weight norm by a hook": (lambda: normed(old_weight_norm)(Net()), Net, {}),
    "spectral norm by a hook": (
        lambda: run_once(normed(nn.utils.spectral_norm)(Net())),
        lambda: plain(run_once(normed(nn.utils.spectral_norm)(Net()))),
        {},
    ),
}


def pictures(n: int = 3, shape: tuple[int, ...] = (3, 12, 16)) -> Tensor:
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(2))


HOOKS = [n for n in vars(nn.Module()) if "hook" in n]


@contextmanager
def untouched(net: nn.Module, x: Tensor) -> Iterator[None]:
    """Everything that a user could notice is as it was: also when an exception went through."""

    def state() -> dict[str, Any]:
        return {
            "modes": [m.training for m in net.modules()],
            "requires_grad": [p.requires_grad for p in net.parameters()],
            "grads are the same objects": [id(p.grad) for p in net.parameters()],
            "hooks": [
                {k: dict(v) for k, v in vars(m).items() if k in HOOKS and hasattr(v, "keys")} for m in net.modules()
            ],
            "forward": [vars(m).get("forward") for m in net.modules()],
            "parameters are the same objects": [id(p) for p in net.parameters()],
            "buffers are the same objects": [id(b) for b in net.buffers()],
            "python": random.getstate(),
            "grad mode": torch.is_grad_enabled(),
        }

    def tensors() -> dict[str, Tensor]:
        found = {f"value of {n}": v for n, v in net.state_dict(keep_vars=True).items()}
        found |= {f"grad of {n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
        found |= {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.random.get_state()[1].astype(np.int64))}
        return {k: v.detach().clone() for k, v in (found | {"pictures": x}).items()}

    was, values = state(), tensors()
    try:
        yield
    finally:
        for what, value in state().items():
            assert value == was[what], f"{what} changed"
        now = tensors()
        assert now.keys() == values.keys()
        for what, value in now.items():
            assert torch.equal(value, values[what]), f"{what} changed"


@pytest.fixture(params=TRAPS)
def pair(request: pytest.FixtureRequest) -> tuple[Classifier, Classifier]:
    trap, clean, options = TRAPS[request.param]
    scores = "probabilities" if request.param == "probabilities" else "logits"
    return model(trap(), scores=scores, **options), model(clean())


@pytest.mark.parametrize("name", EXPLAINERS)
def test_the_map_is_that_of_the_same_network_without_the_trap(
    pair: tuple[Classifier, Classifier], name: str, request: pytest.FixtureRequest
) -> None:
    trap, clean = pair
    x = pictures()
    if "needs-relu" in cs.catalogue("explainers")[name].claims and "SiLU" in request.node.name:
        with untouched(trap.net, x), pytest.raises(Refused, match="is defined for ReLU"):
            cs.explain(trap, x, spelled(name), cs.ClassScore(0))
        return
    target = cs.ClassScore([0, 1, 2])
    calls = [parse(spelled(name), "explainers")]
    if NEEDS_A_LINEAR_HEAD & calls[0].method.claims:
        with untouched(trap.net, x), pytest.raises(Refused, match="not linear"):
            cs.explain(trap, x, calls[0], target)
        return
    if "layer" in calls[0].method.options:
        calls.append(calls[0].with_options(layer="second"))
    for call in calls:
        with untouched(trap.net, x):
            found = cs.explain(trap, x, call, target)
        assert bool(found.maps.any()), "a map of zeros tests nothing"
        right = cs.explain(clean, x, found.method, target)  # spelled with the layer that was found
        learned = "perturbation" in name  # rounding is learned as well
        torch.testing.assert_close(found.maps, right.maps, rtol=1e-4, atol=5e-3 if learned else 1e-6)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_is_that_on_the_same_network_without_the_trap(
    pair: tuple[Classifier, Classifier], name: str
) -> None:
    trap, clean = pair
    x = pictures()
    with torch.no_grad(), clean.undisturbed():
        y = clean(x).argmax(1)
    with untouched(trap.net, x):
        found = cs.attack(trap, x, y, spelled(name), eps=0.1, other=clean)
    right = cs.attack(clean, x, y, spelled(name), eps=0.1, other=clean)
    assert torch.equal(found.fooled, right.fooled)
    if "black-box" in cs.catalogue("attacks")[name].claims:  # of two answers as good as equal, rounding picks one
        torch.testing.assert_close(found.distance, right.distance, rtol=0.05, atol=1e-5)
    else:
        torch.testing.assert_close(found.x, right.x, rtol=1e-4, atol=1e-5)
    assert bool((found.x != x).any())


@pytest.mark.parametrize("name", [*EXPLAINERS, *ATTACKS])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_exception_in_the_middle_leaves_the_network_as_it_was(name: str, after: int) -> None:
    net = with_grads(hooked(mixed_modes(Fails(nn.ReLU(inplace=True)))))
    net.calls = after
    x = pictures()
    raised = False
    with untouched(net, x):
        try:
            if name in EXPLAINERS:
                cs.explain(model(net), x, spelled(name), cs.ClassScore(0))
            else:
                cs.attack(model(net), x, torch.tensor([0, 1, 2]), spelled(name), eps=0.1, other=model(net))
        except cs.Refused as e:
            raised = isinstance(e.__cause__, KeyError)
    assert raised or net.calls < 2 + after


def run(trap: Classifier, x: Tensor, name: str, **more: str) -> Tensor:
    """The maps of an explainer, or the pictures of an attack (more: of its options) on whatever the network says."""
    if name in EXPLAINERS:
        return cs.explain(trap, x, spelled(name), cs.ClassScore(0)).maps
    with torch.no_grad(), trap.undisturbed():
        y = trap(x).argmax(1)
    return cs.attack(trap, x, y, parse(spelled(name), "attacks").with_options(**more), eps=0.1, other=trap).x


@pytest.mark.filterwarnings("ignore:auto-attack. no gradient flows back:clearsight.errors.Notice")
@pytest.mark.parametrize("net", [Blind, Half])
@pytest.mark.parametrize("name", [*EXPLAINERS, *ATTACKS])
def test_where_no_gradient_flows_it_is_right_or_refused_by_name(net: type[Net], name: str) -> None:
    blind, clean = model(net()), model(Plain() if net is Half else Net())
    x = pictures()
    refused = ""
    with untouched(blind.net, x):
        try:
            found = run(blind, x, name)
        except Refused as e:
            refused = str(e)
    if refused:
        no_gradient = "no gradient flows back" in refused and "no_grad" in refused
        assert no_gradient or (NEEDS_A_LINEAR_HEAD & cs.catalogue("explainers")[name].claims and "linear" in refused)
    elif name in EXPLAINERS:
        call = resolve(blind, x[:1], parse(spelled(name), "explainers"))  # the layer that was found without gradients
        right = cs.explain(clean, x, call, cs.ClassScore(0)).maps
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)
    else:
        part = {"part": "square"} if name == "auto-attack" else {}  # of its four the one that needs no gradient
        torch.testing.assert_close(found, run(clean, x, name, **part), rtol=1e-4, atol=1e-6)


LOOK_AT_THE_MODEL = [n for n in EXPLAINERS if "control" not in cs.catalogue("explainers")[n].claims]


@pytest.mark.parametrize("name", [*LOOK_AT_THE_MODEL, *ATTACKS])
@pytest.mark.parametrize("out", [lambda z: (z, z), lambda z: {"logits": z}], ids=["tuple", "dict"])
def test_tuples_and_dicts_without_output_are_refused_with_the_word_that_mends(name: str, out: Any) -> None:
    trap = model(Net(out=out))
    x = pictures()
    with untouched(trap.net, x), pytest.raises(Refused, match=r"say where the scores are, output=('logits'|0)"):
        run(trap, x, name)


def line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def grey() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


@pytest.mark.parametrize("name", [*EXPLAINERS, *ATTACKS])
@pytest.mark.parametrize(
    ("net", "shape"), [(grey, (1, 12, 12)), (grey, (1, 7, 21)), (line, (2, 40))], ids=["grey", "not square", "sequence"]
)
def test_grey_long_and_one_dimensional_inputs_with_two_classes(
    net: Callable[[], nn.Module], shape: tuple[int, ...], name: str
) -> None:
    pre = Preprocess(shape[1:], (0.5,) * shape[0], (0.25,) * shape[0])
    trap = model(net(), labels=("no", "yes"), preprocess=pre)
    x = pictures(3, shape)
    with torch.no_grad():
        trap.net[-1].bias -= trap(x).mean(0) - torch.tensor([0.0, 0.1])  # all are a little yes: no is to be found
    claims = {**cs.catalogue("explainers"), **cs.catalogue("attacks")}[name].claims
    if "pictures-only" in claims and len(shape) != 3:
        with untouched(trap.net, x), pytest.raises(Refused, match=f"{name}.*pictures"):
            run(trap, x, name)
        return
    with untouched(trap.net, x):
        if name in ATTACKS:
            y = trap(x).argmax(1)
            eps = float("inf") if "minimal" in claims else 0.2  # what only labels lead comes from far
            starts = cs.attack(trap, x, y, "pgd", eps=1.0).x if {"minimal", "black-box"} <= claims else None
            found = cs.attack(trap, x, y, spelled(name), eps=eps, other=trap, starts=starts)
            assert found.x.shape == x.shape
            score = cs.Margin(y)
            with torch.no_grad():
                assert bool((score(trap(found.x)) < score(trap(x))).all()), "the attack went the wrong way"
        else:
            found = cs.explain(trap, x, spelled(name), cs.ClassScore(0))
            assert found.maps.shape == (3, *shape[1:])
            plain = copy.deepcopy(trap.net)
            plain[1] = nn.ReLU()
            clean = cs.explain(model(plain, labels=("no", "yes"), preprocess=pre), x, spelled(name), cs.ClassScore(0))
            torch.testing.assert_close(found.maps, clean.maps, rtol=1e-5, atol=1e-7)


def test_a_sequence_is_explained_by_the_closed_form() -> None:
    """One convolution of width 1 without bias, averaged: Grad-CAM is the rectified weighted sum of its channels."""
    net = line()
    net[0] = nn.Conv1d(2, 4, 1, bias=False)
    net[1] = nn.Identity()
    trap = model(net, labels=("no", "yes"), preprocess=Preprocess((40,), (0.0,) * 2, (1.0,) * 2))
    x = pictures(2, (2, 40))
    found = cs.explain(trap, x, "grad-cam", cs.ClassScore(1)).maps
    with torch.no_grad():
        by_hand = torch.einsum("bcl,kc,k->bl", x, net[0].weight[:, :, 0], net[4].weight[1] / 40).relu()
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-6)


def test_a_method_that_writes_into_the_pictures_or_the_weights_does_no_harm() -> None:
    def rude(model: Classifier, x: Tensor, target: cs.ClassScore) -> Tensor:
        return x.zero_()[:, 0]

    def worse(model: Classifier, x: Tensor, target: cs.ClassScore) -> Tensor:
        with torch.no_grad():
            model.net.head.weight.zero_()
        return x[:, 0]

    net, x = Net(), pictures()
    with untouched(net, x):
        found = cs.explain(model(net), x, Call(Method(rude, name="rude")), cs.ClassScore(0))
    assert torch.equal(found.x, x)
    with pytest.raises(RuntimeError, match=r"parameters were changed: head\.weight"):
        cs.explain(model(net), x, Call(Method(worse, name="worse")), cs.ClassScore(0))


def test_unfrozen_parameters_still_learn_afterwards() -> None:
    net = Net(nn.ReLU(inplace=True))
    for name in EXPLAINERS:
        if not NEEDS_A_LINEAR_HEAD & cs.catalogue("explainers")[name].claims:
            cs.explain(model(net), pictures(), spelled(name), cs.ClassScore(0))
    net.train()
    net(pictures()).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
