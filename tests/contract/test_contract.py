"""The contract: the manners of every explainer, attack and metric.  A new file is tested by being there.

Whether the numbers are right is asked in tests/values.
"""

import copy
import doctest
import functools
import importlib
import inspect
import pkgutil
import random
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clearsight
from argsblock import check_args_block
from clearsight.core import rng
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import Method, catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.norms import NORMS, Norm, norm_of
from clearsight.core.preprocess import Preprocess
from clearsight.core.taking import takes_kind
from clearsight.core.targets import Become, ClassScore, Misclassify
from clearsight.errors import Refused
from clearsight.runner.run import attack, explain, measure
from clearsight.testing import linear
from thinning import with_slow

KINDS = ("explainers", "attacks", "metrics")
EVERY = [(kind, name) for kind in KINDS for name in catalogue(kind)]
CLAIMS = {
    "explainers": {
        "class-sensitive",
        "complete",
        "signed",
        "control",
        "stochastic",
        "needs-convolutions",
        "needs-a-linear-head",
        "needs-relu",
        "pictures-only",
        "few-passes",
        "learnable",
        "scores-only",
        "shares-passes",
    },
    "attacks": {
        "linf",
        "l2",
        "characters",
        "stochastic",
        "black-box",
        "minimal",
        "unbounded",
        "pictures-only",
        "texts-only",
    },
    "metrics": {
        "lower-is-better",
        "higher-is-better",
        "stochastic",
        "judges-the-explainer",
        "judges-the-map-alone",
        "of-pixels",
    },
}
FIRST = {"explainers": "model x target", "attacks": "model x goal", "metrics": "model x target maps"}
SMALL = {  # options that suit the small pictures here, and little time
    "explainers": {"window": 6, "stride": 4, "steps": 6, "samples": 12, "masks": 12, "iterations": 6, "cells": 3},
    "attacks": {
        "queries": 60,
        "steps": 8,
        "classes": 2,
        "rotation": 180,
        "translation": 0.6,
        "share": 0.5,
        "shape": "square",
    },
    "metrics": {},
    # where more than a third of the places are bright, the largest part of noise nearly fills the picture
    "box-iou": {"threshold": 0.6},
    "gt-known-localisation": {"threshold": 0.6, "overlap": 0.3},
}
LOUD = {
    "restarts": 4,
    "random_start": True,
    "steps": 1,
    "step": 0.001,
}  # an attack's options under which chance decides

every = pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{k}-{n}" for k, n in EVERY])
# those that work on pictures and classifiers; test_contract_texts.py and test_kinds_explainers.py have the others
OF_PICTURES = [
    (k, n) for k, n in EVERY if "texts-only" not in catalogue(k)[n].claims and takes_kind(catalogue(k)[n], "classifier")
]
every_of_pictures = pytest.mark.parametrize(("kind", "name"), OF_PICTURES, ids=[f"{k}-{n}" for k, n in OF_PICTURES])


def each(kind: str, claim: str = "") -> pytest.MarkDecorator:
    names = [n for k, n in OF_PICTURES if k == kind and (not claim or claim in catalogue(kind)[n].claims)]
    return pytest.mark.parametrize("name", names)


def spelled(kind: str, name: str, **options: Any) -> str:
    """The method with those of the options that it has."""
    has = catalogue(kind)[name].options
    words = ", ".join(f"{k}={v}" for k, v in {**SMALL[kind], **SMALL.get(name, {}), **options}.items() if k in has)
    return f"{name}({words})"


def run(kind: str, call: str, model: Classifier, x: Tensor, rows: Any = slice(None), seed: int = 0, batch: int = 16):
    """The method on some rows of the pictures, each with its own class, map and region."""
    classes = torch.arange(len(x)) % len(model.labels)
    noise = torch.rand(len(x), *x.shape[2:], generator=torch.Generator().manual_seed(2))
    maps = (noise * 8).floor() - 2  # with ties and with negatives
    regions = torch.zeros(maps.shape, dtype=torch.bool)
    regions[:, : x.shape[2] // 2] = True
    if kind == "explainers":
        return explain(model, x[rows], call, ClassScore(classes[rows]), seed=seed, batch=batch).maps
    if kind == "attacks":
        more = {"other": model, "lessons": (x, Misclassify(classes))}  # who learns from the pictures learns from these
        return attack(model, x[rows], classes[rows], call, eps=0.1, seed=seed, batch=batch, **more).x
    target = ClassScore(classes[rows], of="prob")
    more: dict[str, Any] = {"regions": regions[rows], "method": "saliency", "other": model}
    return measure(model, x[rows], maps[rows], call, target, **more, seed=seed, batch=batch)


def sides(kind: str, x: Tensor) -> tuple[int, ...]:
    """The shape of what such a method gives for pictures x."""
    return {"explainers": (len(x), *x.shape[2:]), "attacks": tuple(x.shape), "metrics": (len(x),)}[kind]


def double(model: Classifier) -> Classifier:
    """The same in double precision."""
    return Classifier(copy.deepcopy(model.net).double(), model.preprocess, model.labels)


def outputs(model: Classifier, x: Tensor) -> Tensor:
    with model.undisturbed(), torch.no_grad():
        return model(x)


@pytest.fixture(scope="module")
def shared(new_small) -> Iterator[Classifier]:
    """One network for many tests: what is measured once for a network is measured once; none leaves a mark on it."""
    model = new_small()
    before = state(model.net)
    yield model
    assert same(before, state(model.net))


@pytest.fixture(scope="module")
def plain(shared) -> Callable[[str, str], Tensor]:
    """What a method gives for the shared network and the pictures x, run once."""
    x = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    return functools.cache(lambda kind, name: run(kind, spelled(kind, name), shared, x))


@pytest.fixture(scope="module")
def taught() -> tuple[Classifier, Tensor, Tensor]:
    """A network that has learned in which third of the picture the light is, with 24 pictures and their classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = torch.arange(24) % 3
        x = torch.rand(24, 3, 8, 12) * 0.4
        for i, k in enumerate(y.tolist()):
            x[i, :, :, 4 * k : 4 * k + 4] += 0.5
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 3)
        )
        model = Classifier(net, Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3), ("left", "middle", "right"), "taught")
        adam = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            adam.step()
        adam.zero_grad()
    assert torch.equal(outputs(model, x).argmax(1), y)
    return model, x, y


# --- what comes out ---------------------------------------------------------------------------------------------------


@every_of_pictures
def test_shape_type_and_finite(kind, name, plain, x):
    out = plain(kind, name)
    assert tuple(out.shape) == sides(kind, x)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert not out.requires_grad


@every_of_pictures
def test_says_something(kind, name, shared, plain, x):
    """What is the same for every picture and everywhere would pass most of the other tests."""
    many = x.repeat(5, 1, 1, 1)  # each picture with each class
    out = run(kind, spelled(kind, name), shared, many) if kind == "metrics" else plain(kind, name)
    if kind == "attacks":
        assert ((out - x).flatten(1).abs().amax(1) > 0).any()
    else:
        assert out.std() > 0
    if kind == "explainers" and "control" not in catalogue(kind)[name].claims:  # a control may look at nothing at all
        assert (out[0] != out[1]).any()


@every_of_pictures
def test_a_batch_is_its_pictures(kind, name, shared, plain, x):
    if name == "patch":  # it goes by the signs of sums over lessons, which rounding of single precision may turn
        shared = double(shared)
    for options in {}, LOUD if kind == "attacks" else {}:
        call = spelled(kind, name, **options)
        whole = run(kind, call, shared, x) if options or name == "patch" else plain(kind, name)
        for i in 0, 3:
            torch.testing.assert_close(run(kind, call, shared, x, [i]), whole[[i]], rtol=1e-4, atol=1e-5)
        order = torch.tensor([2, 0, 3, 1])
        for other in run(kind, call, shared, x, order), run(kind, call, shared, x, order, batch=3):
            torch.testing.assert_close(other, whole[order], rtol=1e-4, atol=1e-5)


@every_of_pictures
@pytest.mark.parametrize("size", [(20,), (4, 6, 5)], ids=["sequence", "clip"])
def test_other_dimensions(kind, name, size):
    conv, pool = {1: (nn.Conv1d, nn.AdaptiveAvgPool1d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[len(size)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(conv(2, 6, 3, padding=1), nn.ReLU(), conv(6, 6, 3), nn.ReLU(), pool(1), nn.Flatten())
        net.append(nn.Linear(6, 3))
        x = torch.rand(3, 2, *size)
    model = Classifier(net, Preprocess(size, (0.5,) * 2, (0.5,) * 2), tuple("abc"))
    if "pictures-only" in catalogue(kind)[name].claims:
        with pytest.raises(Refused, match=f"{name}.*pictures"):
            run(kind, name, model, x)
        return
    assert tuple(run(kind, spelled(kind, name, window=3, stride=2), model, x).shape) == sides(kind, x)


@every_of_pictures
def test_seed(kind, name, shared, x):
    call = spelled(kind, name, **(LOUD if kind == "attacks" else {}))
    if kind == "metrics":  # each picture with each class
        x = x.repeat(5, 1, 1, 1)
    first = run(kind, call, shared, x)
    torch.rand(3)  # what the caller draws in between cannot show
    torch.testing.assert_close(run(kind, call, shared, x), first, rtol=0, atol=0)
    other = run(kind, call, shared, x, seed=1)
    if "stochastic" in catalogue(kind)[name].claims:
        assert not torch.equal(other, first)
    else:
        assert torch.equal(other, first)


@every_of_pictures
def test_a_caller_without_gradients(kind, name, shared, plain, x):
    call = spelled(kind, name)
    with torch.no_grad():
        torch.testing.assert_close(run(kind, call, shared, x), plain(kind, name))
    with torch.inference_mode(), pytest.raises(Refused, match="inference_mode"):
        run(kind, call, shared, x)


def test_tensors_made_in_inference_mode(small, x):
    with torch.inference_mode():
        z, y = x.clone(), torch.tensor([0, 1, 2, 3])
        right = nn.functional.one_hot(y, 5).bool()
    assert explain(small, z, "saliency", ClassScore(y)).maps.isfinite().all()
    for goal in (Misclassify(y), Misclassify(right), Become(y)):
        assert attack(small, z, goal, "pgd(steps=2)").x.isfinite().all()


# --- what is left behind ----------------------------------------------------------------------------------------------


def state(net: nn.Module) -> list[Any]:
    """All of a network that a method could change."""
    params = [
        (p.detach().clone(), p.requires_grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()
    ]
    modules = [(m.training, [dict(getattr(m, k)) for k in vars(m) if k.endswith("_hooks")]) for m in net.modules()]
    return [params, [b.clone() for b in net.buffers()], modules]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@every_of_pictures
def test_model_input_and_chance_are_left_alone(kind, name, small, x):
    small.net[0].weight.grad = torch.ones_like(small.net[0].weight)
    small.net[4].weight.requires_grad_(False)
    small.net[1].eval()
    small.net[2].register_forward_hook(lambda *_: None)
    before, was = state(small.net), x.clone()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    chance = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    run(kind, spelled(kind, name), small, x)
    assert same(before, state(small.net))
    assert torch.equal(x, was)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), chance[0])
    assert random.getstate() == chance[1]
    assert (np.random.get_state()[1] == chance[2]).all()


@every_of_pictures
def test_model_is_left_alone_after_an_exception(kind, name, small, x):
    calls: list[int] = []
    stops: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(0)
        if len(calls) in stops[-1:]:
            raise KeyError("in the middle")

    small.net[-1].register_forward_hook(fail)
    before = state(small.net)
    run(kind, spelled(kind, name), small, x)  # the first time, what a pass keeps is measured
    calls.clear()
    run(kind, spelled(kind, name), small, x)
    for stop in {(len(calls) + 1) // 2, len(calls)} if calls else ():
        calls.clear()
        stops.append(stop)
        with pytest.raises(Refused, match="KeyError: 'in the middle'"):
            run(kind, spelled(kind, name), small, x)
        assert same(before, state(small.net))


class Traps(nn.Module):
    """In-place, reused and functional ReLUs, a frozen layer, a residual addition, a dict as output."""

    def __init__(self, *, clean: bool, last: Any = nn.functional.silu) -> None:
        super().__init__()
        self.clean, self.last = clean, last
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=not clean)
        self.head = nn.Linear(6, 4)
        self.first.requires_grad_(clean)

    def forward(self, x: Tensor) -> Any:
        if self.clean:
            h = self.first(x).relu()
            h = self.second((self.second(h) + h).relu()).relu()
            return self.head(self.last(h).mean((2, 3)))
        h = nn.functional.relu(self.first(x), inplace=True)
        z = self.second(h)
        z += h
        h = self.relu(self.second(self.relu(z)))
        return {"features": h, "scores": self.head(self.last(h).mean((2, 3)))}


@every_of_pictures
def test_a_network_of_traps_gives_what_its_clean_twin_gives(kind, name):
    last = nn.functional.relu6 if "needs-relu" in catalogue(kind)[name].claims else nn.functional.silu
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trap, clean = Traps(clean=False, last=last), Traps(clean=True, last=last)
        x = torch.rand(3, 3, 8, 12)
    clean.load_state_dict(trap.state_dict())
    preprocess = Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3)
    a = Classifier(trap, preprocess, tuple("abcd"), output="scores")
    b = Classifier(clean, preprocess, tuple("abcd"))
    before = state(trap)
    layer = {"layer": "first"} if kind == "explainers" else {}
    if "needs-a-linear-head" in catalogue(kind)[name].claims:
        for model in a, b:
            with pytest.raises(Refused, match=rf"{name}: the scores are not linear"):
                run(kind, spelled(kind, name, **layer), model, x)
        assert same(before, state(trap))
        return
    found, wanted = (run(kind, spelled(kind, name, **layer), m, x) for m in (a, b))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert same(before, state(trap))


# --- what it says of itself -------------------------------------------------------------------------------------------


@every
def test_signature(kind, name):
    m = catalogue(kind)[name]
    signature = inspect.signature(m.fn, eval_str=True)
    plain = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert plain == (["box", "x"] if "black-box" in m.claims else FIRST[kind].split())
    assert not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in signature.parameters.values())
    assert signature.return_annotation is Tensor
    assert m.injected <= {"eps", "regions", "again", "other", "lessons", "starts"}
    assert ("eps" in m.injected) == (kind == "attacks")
    for option in m.options.values():
        for t in parts(option.annotation):
            assert t in (int, float, bool, str, types.NoneType) or get_origin(t) is Literal, option
        assert option.default is not option.empty


def parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


@every
def test_documented(kind, name):
    m = catalogue(kind)[name]
    assert re.fullmatch(r"[A-Z].*[.?]", m.summary), m.summary
    assert len(m.summary) <= 112
    doc = inspect.getdoc(m.fn)
    assert ("(B, letters, L)" if "texts-only" in m.claims else "(B, C, *S)") in doc
    if kind != "attacks":
        assert "(B, *S)" in doc
    check_args_block(m)
    for given in m.injected - {"regions", "again"}:
        assert re.search(rf"\b{given}\b", doc), f"{name} does not say what {given} is"
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|control", m.paper), m.paper
    assert m.paper == "control" or m.paper in importlib.import_module(m.fn.__module__).__doc__
    assert (m.paper == "control") == ("control" in m.claims)


@every
def test_examples_are_true(kind, name):
    m = catalogue(kind)[name]
    space = vars(importlib.import_module(m.fn.__module__)).copy()
    tests = doctest.DocTestFinder(recurse=False).find(m.fn, name, globs=space)
    runner = doctest.DocTestRunner()
    with torch.random.fork_rng():
        for test in tests:
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries or "control" in m.claims


def _has_examples(info: pkgutil.ModuleInfo) -> bool:
    source = info.module_finder.find_spec(info.name).loader.get_source(info.name)
    return ">>> " in source


def test_examples_of_all_modules_are_true():
    """Every example outside the methods: no list of modules to keep."""
    attempted = 0
    for info in pkgutil.walk_packages(clearsight.__path__, "clearsight."):
        if not info.name.endswith("__main__") and _has_examples(info):
            result = doctest.testmod(importlib.import_module(info.name))
            assert not result.failed, info.name
            attempted += result.attempted
    assert attempted > 400


@every
def test_claims_are_known(kind, name):
    claims = catalogue(kind)[name].claims
    assert claims <= CLAIMS[kind]
    if kind == "metrics":
        assert len({"lower-is-better", "higher-is-better"} & claims) == 1
    if kind == "attacks":
        assert len({"linf", "l2", "characters"} & claims) == (2 if "norm" in catalogue(kind)[name].options else 1)


# --- the claims of explainers -----------------------------------------------------------------------------------------


@each("explainers")
def test_class_sensitive(name, shared, x):
    a, b = (explain(shared, x, spelled("explainers", name), ClassScore(k)).maps for k in (0, 1))
    claims = catalogue("explainers")[name].claims
    if "class-sensitive" in claims:
        assert all(not torch.allclose(a[i], b[i]) for i in range(len(x)))
    if "control" in claims:
        assert torch.equal(a, b)


@each("explainers", "complete")
def test_complete(name, taught):
    model, x, _ = taught
    e = explain(model, x, name, ClassScore(1))
    gap = ClassScore(1)(outputs(model, x)) - ClassScore(1)(outputs(model, torch.zeros_like(x)))
    torch.testing.assert_close(e.maps.flatten(1).sum(1), gap, rtol=0.01, atol=0.02)


@each("explainers")
def test_signed(name, taught):
    model, x, _ = taught
    e = [explain(model, x, spelled("explainers", name), ClassScore(k)) for k in range(3)]
    says = "signed" in catalogue("explainers")[name].claims
    assert any(bool((i.maps < 0).any()) for i in e) == says
    assert all(i.signed == says for i in e)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, m in catalogue("explainers").items()
        if {"few-passes", "control"} & {*m.claims} and takes_kind(m, "classifier")
    ],
)
def test_few_passes(name, shared, x):
    """At most five, forward and back, for a picture by those that claim it; none by the controls."""
    claims = catalogue("explainers")[name].claims
    e = explain(shared, x, name, ClassScore(torch.arange(len(x)) % 3))
    if "control" in claims:
        assert "few-passes" not in claims
        assert (e.forwards, e.backwards) == (0, 0)
    else:
        assert 1 <= e.forwards + e.backwards <= 5


class Closed(nn.Module):
    """Gives scores, and neither gradients nor layers, as an engine does."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = [inside]

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            return torch.from_numpy(self.inside[0](torch.from_numpy(x.detach().numpy().copy())).numpy())


@each("explainers")
def test_scores_only(name, shared, x):
    """Those that claim it, and the controls, explain a model that gives scores alone, and no others do."""
    closed = clearsight.Classifier(Closed(copy.deepcopy(shared.net).eval()).eval(), shared.preprocess, shared.labels)
    if catalogue("explainers")[name].claims & {"scores-only", "control"}:
        here, there = (explain(m, x, spelled("explainers", name), ClassScore(1)).maps for m in (closed, shared))
        assert (here - there).abs().max() < 1e-5
    else:
        with pytest.raises(Refused):
            explain(closed, x, spelled("explainers", name), ClassScore(1))


@each("explainers")
def test_needs_convolutions(name):
    model, x = linear([[3.0, -2.0, 1.0], [0.0, 1.0, 0.0]]), torch.rand(2, 1, 1, 3)
    if "needs-convolutions" in catalogue("explainers")[name].claims:
        with pytest.raises(Refused, match="no convolution"):
            explain(model, x, name)
    elif "needs-relu" in catalogue("explainers")[name].claims:
        with pytest.raises(Refused, match=f"{name} is defined for ReLU, and this network has none"):
            explain(model, x, name)
    else:
        assert explain(model, x, name).maps.shape == (2, 1, 3)


# --- attacks ----------------------------------------------------------------------------------------------------------


def norms(name: str) -> tuple[Norm, ...]:
    """The norms in which an attack can keep its budget."""
    return NORMS if "norm" in catalogue("attacks")[name].options else (norm_of(parse(name, "attacks")),)


def full(norm: Norm, x: Tensor) -> float:
    """A budget in which everything is allowed."""
    return 1.0 if norm == "linf" else x[0].numel() ** 0.5


def asked(name: str, norm: Norm) -> str:
    """An attack in a norm, with enough queries for the small network here."""
    queries = 300 if "black-box" in catalogue("attacks")[name].claims else 60
    return spelled("attacks", name, norm=norm, queries=queries, steps=20)


def in_norms(first: int = 0, claim: str = "") -> pytest.MarkDecorator:
    """Every attack in one of its norms, which take turns from attack to attack and test to test; slow in the others."""
    names = [n for k, n in OF_PICTURES if k == "attacks" and (not claim or claim in catalogue(k)[n].claims)]
    attacks = [(n, p, (i + first) % len(norms(n)) == k) for i, n in enumerate(names) for k, p in enumerate(norms(n))]
    rows = [pytest.param(n, p, marks=() if runs else pytest.mark.slow, id=f"{n}-{p}") for n, p, runs in attacks]
    return pytest.mark.parametrize(("name", "norm"), rows)


@in_norms(0)
@pytest.mark.parametrize("eps", with_slow([1 / 255, 8 / 255, 0.3, 1.0], 1 / 255, 0.3))
def test_attack_stays_within_its_budget(name, norm, eps, taught):
    model, x, y = taught
    claims = catalogue("attacks")[name].claims
    a = attack(model, x, y, spelled("attacks", name, norm=norm), eps=eps, other=model)
    assert norm in claims or "unbounded" in claims
    assert a.norm == norm
    assert a.distance.max() <= eps + 1e-6
    assert a.x.min() >= 0
    assert a.x.max() <= 1
    assert a.overstep < 1e-6 or claims & {"minimal", "unbounded"}
    assert a.eps == eps


@each("attacks", "black-box")
@pytest.mark.parametrize("queries", [1, 7, 60])
def test_no_black_box_is_asked_more_than_was_paid_for(monkeypatch, name, queries, taught):
    """The hooks count every picture that went through the network, besides the runner's own look before and after.

    What is known before is paid for and does not go through it.
    """
    model, x, y = taught
    attack(model, x[:1], y[:1], "fgsm")  # what a pass keeps is looked at once for each network
    seen, known_before = [], []
    ask = BlackBox.ask_until_better

    def noted(*args, known=None):
        found = ask(*args, known=known)
        known_before.extend([] if known is None else [int((known & found[2]).sum())])
        return found

    monkeypatch.setattr(BlackBox, "ask_until_better", noted)
    handle = model.net.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    a = attack(model, x, y, spelled("attacks", name, queries=queries), eps=0.05, other=model)
    handle.remove()
    assert a.spent.max() <= queries
    assert name == "transfer" or sum(seen) + sum(known_before) == int(a.spent.sum()) + 2 * len(x)
    assert bool(known_before) == (name == "square" and queries > 1)
    assert bool((a.first <= a.spent).all())
    assert bool((a.fooled | (a.first == 0)).all())


@each("attacks", "black-box")
def test_a_black_box_that_answers_with_labels_alone(name, taught):
    """It is attacked by the label, or refused with the name of an attack that does not need more."""
    model, x, y = taught
    call = spelled("attacks", name)
    if name in ("boundary", "hop-skip-jump", "transfer"):
        a, b = (attack(model, x, y, call, eps=0.1, other=model, access=access) for access in ("label", "logits"))
        assert torch.equal(a.x, b.x)
    else:
        with pytest.raises(Refused, match="hop-skip-jump"):
            attack(model, x, y, call, eps=0.1, access="label")


@in_norms(1, "minimal")
def test_the_smallest_change_has_no_budget_and_does_not_depend_on_one(name, norm, taught):
    model, x, y = taught
    free = attack(model, x, y, asked(name, norm), eps=float("inf"))
    assert free.fooled.float().mean() > 0.9
    half = float(free.distance[free.fooled].median())
    some = attack(model, x, y, asked(name, norm), eps=half)
    assert torch.equal(some.fooled, free.fooled & (free.distance <= half))


@each("attacks")
def test_eps_0_changes_nothing(name, taught):
    model, x, y = taught
    a = attack(model, x, y, spelled("attacks", name), eps=0, other=model)
    assert torch.equal(a.x, x)
    assert not a.fooled.any()


@each("attacks")
def test_who_is_wrong_already_is_not_fooled(name, taught):
    model, x, y = taught
    wrong = torch.arange(len(y)) % 2 == 0
    labels = torch.where(wrong, (y + 1) % 3, y)
    norm = norms(name)[0]
    a = attack(model, x, labels, asked(name, norm), eps=0.5 * full(norm, x), other=model)
    assert torch.equal(a.already, wrong)
    assert torch.equal(a.x[wrong], x[wrong])
    assert torch.equal(a.fooled, (outputs(model, a.x).argmax(1) != labels) & ~wrong)
    assert a.fooled.any()


@in_norms(1)
def test_without_a_limit_no_more_than_chance_is_left(name, norm, taught):
    m = catalogue("attacks")[name]
    if "lessons" in m.injected and "unbounded" in m.claims:
        pytest.skip("it covers a part of the picture alone")
    model, x, y = taught
    a = attack(model, x, y, asked(name, norm), eps=full(norm, x), other=model)
    assert a.fooled.float().mean() >= 1 - 1 / 3


MANY_QUERIES = {"simba", "square", "boundary", "auto-attack", "hop-skip-jump", "carlini-wagner"}


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(n, p, marks=pytest.mark.slow if n in MANY_QUERIES or (n == "fab" and p == "linf") else ())
        for k, n in OF_PICTURES
        if k == "attacks"
        for p in norms(n)
    ],
)
def test_more_budget_fools_no_fewer(name, norm, taught):
    if "unbounded" in catalogue("attacks")[name].claims:
        pytest.skip("it keeps no budget in pixels")
    model, x, y = taught
    budgets = [0.0, 0.02, 0.05, 0.1, 0.4]
    fooled = [
        int(attack(model, x, y, asked(name, norm), eps=e * full(norm, x), other=model).fooled.sum()) for e in budgets
    ]
    assert fooled == sorted(fooled)
    assert fooled[0] < fooled[-1]


@in_norms(0)
def test_pixels_at_the_border_can_move(name, norm, taught):
    if "unbounded" in catalogue("attacks")[name].claims:
        pytest.skip("it moves no single pixels")
    model, x, _ = taught
    binary = (x > 0.4).float()
    y = outputs(model, binary).argmax(1)
    a = attack(model, binary, y, asked(name, norm), eps=0.3 if norm == "linf" else 5.0, other=model)
    moved = a.x != binary
    for value in (0.0, 1.0):
        assert moved[binary == value].float().mean() > 0.2


@in_norms(1)
def test_become(name, norm, taught):
    m = catalogue("attacks")[name]
    if "lessons" in m.injected and "unbounded" in m.claims:
        pytest.skip("it covers a part of the picture alone")
    model, x, y = taught
    goal = Become((y + 1) % 3)
    a = attack(model, x, goal, asked(name, norm), eps=0.6 if norm == "linf" else 8.0, other=model)
    logits = outputs(model, a.x)
    assert torch.equal(a.fooled, logits.argmax(1) == goal.t)
    assert a.fooled.float().mean() > 0.3
    assert (goal.loss(logits) < goal.loss(outputs(model, x)))[a.fooled].all()


@in_norms(0)
def test_become_on_a_linear_model_always_succeeds(name, norm):
    if "pictures-only" in catalogue("attacks")[name].claims:
        pytest.skip("a row of numbers is no picture")
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    model, x = linear(weight.tolist()), torch.rand(8, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    goal = Become(1 - outputs(model, x).argmax(1))
    assert attack(model, x, goal, asked(name, norm), eps=full(norm, x), other=model).fooled.all()


@in_norms(1)
def test_several_acceptable_classes(name, norm, taught):
    m = catalogue("attacks")[name]
    if "lessons" in m.injected and "unbounded" in m.claims:
        pytest.skip("it covers a part of the picture alone")
    model, x, _ = taught
    right = torch.zeros(len(x), 3, dtype=torch.bool).scatter(1, outputs(model, x).topk(2).indices, True)
    a = attack(model, x, Misclassify(right), asked(name, norm), eps=0.6 * full(norm, x), other=model)
    answers = outputs(model, a.x).argmax(1)
    assert not a.already.any()
    assert torch.equal(a.fooled, ~right[torch.arange(len(x)), answers])
    assert a.fooled.any()


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n, m in catalogue("metrics").items() if not any("judges" in c for c in m.claims)]
)
def test_a_perfect_map_scores_better_than_its_inverse(name):
    region = torch.zeros(1, 1, 16, dtype=torch.bool)
    region[0, 0, [9, 10, 12, 14]] = True
    weight = region[0, 0].float() - 0.3  # all else speaks against the class
    model = linear([weight.tolist(), [0.0] * 16])
    x = region[:, None].float() * 0.4 + 0.5
    perfect = (x[:, 0] * weight).clamp_min(0)
    scores = [
        float(measure(model, x, maps, name, ClassScore(0), regions=region))
        for maps in (perfect, perfect.max() - perfect)
    ]
    if "lower-is-better" in catalogue("metrics")[name].claims:
        scores.reverse()
    assert scores[0] > scores[1] + 0.1


# --- the spelling -----------------------------------------------------------------------------------------------------


def values(annotation: Any) -> list[Any]:
    """Values of an option's type, the awkward ones among them."""
    chance, found = random.Random(0), []
    for t in parts(annotation):
        if t is int:
            found += [0, 1, 7, -3, 10**12]
        elif t is float:
            found += [0.0, 0.5, 3.0, 8 / 255, 1 / 3, 1e-9, -2.5, 123456.789, 1e30]
            found += [chance.gauss(0, 10 ** chance.randint(-6, 6)) for _ in range(50)]
            found += [k / 255 for k in range(256)]
        elif t is bool:
            found += [True, False]
        elif t is str:
            found += [
                "auto",
                "layer4.1",
                "",
                "a(b",
                "a)b",
                "x, y",
                "a=b",
                "it's",
                '"quoted"',
                "[0]",
                "none",
                " a ",
                "'",
            ]
        elif t is types.NoneType:
            found += [None]
        else:
            found += get_args(t)
    return found


@every_of_pictures
def test_every_spelling_is_read_back(kind, name):
    m = catalogue(kind)[name]
    assert str(parse(name, kind)) == name
    assert parse(name.upper().replace("-", "_") + "()", kind).method is m
    for key, option in m.options.items():
        for value in values(option.annotation):
            call = parse(name, kind).with_options(**{key: value})
            again = parse(str(call), kind)
            assert again.options == {key: value}, str(call)
            assert type(again.options[key]) is type(value)
            assert str(again) == str(call)
    full = parse(name, kind).with_options(**{k: p.default for k, p in m.options.items()})
    assert parse(str(full), kind) == full
    if kind == "attacks":
        assert parse(f"{name}(eps=8/255)", kind).options == {"eps": 8 / 255}
        assert str(parse(f"{name}(eps=8/255)", kind)) == f"{name}(eps=8/255)"


@every_of_pictures
def test_what_is_not_there_is_refused_with_the_nearest(kind, name):
    m = catalogue(kind)[name]
    middle = len(name) // 2
    with pytest.raises(Refused, match=re.escape(name)):
        parse(name[:middle] + name[middle + 1 :], kind)
    for key, option in m.options.items():
        with pytest.raises(Refused, match=rf"no option '{key}x': did you mean.*\b{key}\b"):
            parse(f"{name}({key}x=1)", kind)
        if {int, float, bool} & set(parts(option.annotation)):
            with pytest.raises(Refused, match=f"{key}=...\\) cannot be 'banana'"):
                parse(f"{name}({key}=banana)", kind)
        with pytest.raises(Refused, match="twice"):
            parse(f"{name}({key}={option.default}, {key}={option.default})", kind)
    for broken in (f"{name}(", f"{name}(1)", f"{name}(regions=1)"):
        with pytest.raises(Refused):
            parse(broken, kind)


# --- the runner does not trust ----------------------------------------------------------------------------------------

MINE = '''
"""A user's own methods, good and bad."""
import torch
from clearsight.core.catalogue import method

def my_cam(model, x, target, *, k: int = 1):
    return x.sum(1) * k

@method(paper="control", claims="signed")
def decorated(model, x, target, *, k: int = 1):
    return -x.sum(1) * k

def my_word(model, x, target, *, word: str | None = None):
    return x[:, 0]

def misshapen(model, x, target):
    return x

def not_finite(model, x, target):
    return x.sum(1) / 0

def not_a_tensor(model, x, target):
    return [1.0]

def writes_into_its_input(model, x, target):
    return x.zero_()[:, 0]

def leaves_a_hook(model, x, target):
    model.net.register_forward_hook(lambda *_: None)
    return x[:, 0]

def changes_a_weight(model, x, target):
    with torch.no_grad():
        next(model.net.parameters()).add_(1)
    return x[:, 0]

def global_chance(model, x, target):
    return torch.rand_like(x[:, 0])

def trains(model, x, target):
    model.net.train()
    model(x)
    return x[:, 0]

def greedy(model, x, goal, *, eps: float, k: float = 1.0):
    return x + k

@method(paper="control", claims="l2")
def greedy_l2(model, x, goal, *, eps: float):
    return 1 - x

def my_metric(model, x, target, maps, *, k: float = 2.0):
    maps.mul_(k)
    return maps.flatten(1).sum(1)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return "./mine.py"


def test_a_file_of_ones_own(mine, small, x):
    e = explain(small, x, f"{mine}:my_cam(k=3)", ClassScore(0))
    torch.testing.assert_close(e.maps, x.sum(1) * 3)
    assert e.method == f"{mine}:my_cam(k=3)"
    assert not e.signed
    assert str(parse(e.method, "explainers")) == e.method
    assert explain(small, x, f"{mine}:decorated", ClassScore(0)).signed
    values = measure(small, x, e.maps, f"{mine}:my_metric(k=0.5)")
    torch.testing.assert_close(values, e.maps.flatten(1).sum(1) / 2)
    with pytest.raises(Refused, match="did you mean my_cam"):
        explain(small, x, f"{mine}:my_cm")
    with pytest.raises(Refused, match="no option 'kk': did you mean k"):
        explain(small, x, f"{mine}:my_cam(kk=3)")
    with pytest.raises(Refused, match="no file"):
        explain(small, x, "./other.py:my_cam")


def test_nothing_and_the_word_none_are_not_the_same(mine):
    for text, value in (("none", None), ('"none"', "none"), ("a", "a")):
        call = parse(f"{mine}:my_word(word={text})", "explainers")
        assert call.options == {"word": value}
        assert str(call) == f"{mine}:my_word(word={text.lower() if value is not None else None})"
        assert parse(str(call), "explainers").options == {"word": value}


@pytest.mark.parametrize("bad", ["misshapen", "not_finite", "not_a_tensor"])
def test_bad_maps_are_refused(bad, mine, small, x):
    with pytest.raises(Refused, match=bad):
        explain(small, x, f"{mine}:{bad}", ClassScore(0))


@pytest.mark.parametrize("bad", ["leaves_a_hook", "changes_a_weight"])
def test_what_disturbs_the_model_is_an_error(bad, mine, small, x):
    with pytest.raises(RuntimeError, match=r"hook|parameters were changed"):
        explain(small, x, f"{mine}:{bad}", ClassScore(0))
    assert not small.net._forward_hooks


def test_the_callers_tensors_are_copied(mine, small, x):
    was, maps = x.clone(), torch.ones(4, 16, 24)
    e = explain(small, x, f"{mine}:writes_into_its_input", ClassScore(0))
    measure(small, x, maps, f"{mine}:my_metric")
    assert torch.equal(x, was)
    assert (maps == 1).all()
    x.zero_()  # nor does what the caller does later show in the result
    assert torch.equal(e.x, was)


def test_buffers_and_mode_are_put_back(mine, small, x):
    before = state(small.net)
    explain(small, x, f"{mine}:trains", ClassScore(0))
    assert same(before, state(small.net))


def test_global_chance_is_seeded_too(mine, small, x):
    a, b, c = (explain(small, x, f"{mine}:global_chance", ClassScore(0), seed=s).maps for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_greedy_attack_is_clipped(mine, small, x):
    y = outputs(small, x).argmax(1)
    a = attack(small, x, y, f"{mine}:greedy", eps=0.1)
    assert torch.equal(a.x, (x + 0.1).clamp(max=1))
    assert a.overstep == pytest.approx(float((x + 1 - a.x).max()), abs=1e-5)
    assert a.overstep > 0.5
    b = attack(small, x, y, f"{mine}:greedy_l2", eps=0.1)
    torch.testing.assert_close((b.x - x).flatten(1).norm(dim=1), torch.full((4,), 0.1))
    assert torch.equal(a.fooled, outputs(small, a.x).argmax(1) != y)
    for eps in (-0.1, float("nan"), float("inf")):
        with pytest.raises(Refused, match="budget"):
            attack(small, x, y, "fgsm", eps=eps)
    with pytest.raises(Refused, match="give one of them"):
        attack(small, x, y, "fgsm(eps=8/255)", eps=0.1)


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x * 255,
        lambda x: x - 0.5,
        lambda x: (x * 255).byte(),
        lambda x: x[:0],
        lambda x: x.clone().index_fill_(0, torch.tensor([1]), torch.nan),
        lambda x: x[:, :1],
        lambda x: x.numpy(),
    ],
    ids=["0..255", "negative", "bytes", "empty", "nan", "one-channel", "numpy"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_pixels_are_refused(kind, bad, small, x):
    name = {"explainers": "saliency", "attacks": "fgsm", "metrics": "deletion"}[kind]
    with pytest.raises(Refused):
        run(kind, name, small, bad(x)) if isinstance(bad(x), Tensor) else explain(small, bad(x), name, ClassScore(0))


def test_draws_belong_to_the_picture(x):
    rows = torch.tensor([2, 2, 0])
    with rng.seeded(3, x):
        all_of, more = rng.uniform(x), rng.normal(x[rows], rows)
    with rng.seeded(3, x[[2]]):
        alone, its = rng.uniform(x[[2]]), rng.normal(x[[2, 2]], torch.tensor([0, 0]))
    assert torch.equal(alone[0], all_of[2])
    assert torch.equal(its, more[:2])
    assert not torch.equal(its[0], its[1])
    assert not torch.equal(all_of[0], all_of[1])
    assert 0 <= all_of.min() <= all_of.max() < 1
    assert abs(float(more.mean())) < 0.1
    assert float(more.std()) == pytest.approx(1, abs=0.1)
    with rng.seeded(3, x), pytest.raises(ValueError, match="rows="):
        rng.uniform(x[:2])
    with rng.seeded(4, x):
        assert not torch.equal(rng.uniform(x), all_of)


def test_a_method_that_nothing_is_known_of_is_a_method():
    m = Method(copy.copy)
    assert (m.name, m.paper, m.claims) == ("copy", "", frozenset())
