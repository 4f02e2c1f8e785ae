"""Networks with every trap: maps are right, or refused by name, and the network comes back as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.core.catalogue import Call, Method, parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused
from clearsight.runner.run import resolve
from thinning import paired
from trapnets import (
    ATTACKS,
    EXPLAINERS,
    NEEDS_A_LINEAR_HEAD,
    TRAPS,
    Fails,
    Net,
    Plain,
    hooked,
    mixed_modes,
    model,
    pictures,
    spelled,
    untouched,
    with_grads,
)

# the nets here add a residual by hand, so that everything passes through their first layer and no later one
pytestmark = pytest.mark.filterwarnings("ignore:the layer that is read is first. :clearsight.errors.Notice")


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


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> tuple[Classifier, Classifier]:
    trap, clean, options = TRAPS[request.param]
    scores = "probabilities" if request.param == "probabilities" else "logits"
    return model(trap(), scores=scores, **options), model(clean())


@pytest.mark.parametrize(("name", "pair"), paired(EXPLAINERS, [*TRAPS], 2), indirect=["pair"])
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


@pytest.mark.parametrize(("name", "pair"), paired(ATTACKS, [*TRAPS], 2), indirect=["pair"])
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
@pytest.mark.parametrize(("name", "net"), paired([*EXPLAINERS, *ATTACKS], [Blind, Half]))
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


@pytest.mark.parametrize(
    ("name", "kind"), paired([*EXPLAINERS, *ATTACKS], [(grey, (1, 12, 12)), (grey, (1, 7, 21)), (line, (2, 40))])
)
def test_grey_long_and_one_dimensional_inputs_with_two_classes(
    kind: tuple[Callable[[], nn.Module], tuple[int, ...]], name: str
) -> None:
    net, shape = kind
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
