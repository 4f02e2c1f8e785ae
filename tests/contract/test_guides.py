"""What every guide keeps to, and what an explainer must give for a guide to train on its maps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, get_origin

import pytest
import torch
from torch import Tensor, nn

from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.internals.kept_graph import CLAIM
from clearsight.testing import training_step
from clearsight.training.losses import guided_loss
from examples import check_examples

GUIDES = list(catalogue("guides"))
every = pytest.mark.parametrize("name", GUIDES)
EXPLAINERS = catalogue("explainers")
LEARNABLE = [n for n, m in EXPLAINERS.items() if CLAIM in m.claims]
WITH_EXPLAINER = [n for n, m in catalogue("guides").items() if "explainer" in m.options]
MIXES = [n for n, m in catalogue("guides").items() if "mixes" in m.claims]  # whose loss is of several pictures at once
each_alone = pytest.mark.parametrize("name", [n for n in GUIDES if n not in MIXES])
FEW = {"steps": 3, "samples": 3}
SIDE = 8


class Smooth(nn.Module):
    """Convolutions with BatchNorm and a smooth activation, averages, and a linear head: no kink in any direction."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.Softplus) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), activation())
        self.features = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5), activation())
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(self.body(x)).mean((2, 3)))
        return scores


def smooth(seed: int = 0, activation: Callable[[], nn.Module] = nn.Softplus) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Smooth(activation).double()
        net.head.weight.data *= 5
    return Classifier(net, Preprocess((SIDE, SIDE), (0.5, 0.5), (0.3, 0.3)), ("a", "b", "c"))


def case(n: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, labels, and where the answer may look: the left half."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 2, SIDE, SIDE, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.eye(3, dtype=torch.float64)[torch.arange(n) % 3]
    inside = torch.zeros(n, 1, SIDE, SIDE, dtype=torch.float64)
    inside[..., : SIDE // 2] = 1
    return x, y, inside


def penalty(name: str, model: Classifier, x: Tensor, y: Tensor, inside: Tensor, **options: Any) -> Tensor:
    torch.manual_seed(3)
    found: Tensor = catalogue("guides")[name](training_step(model), x, y, inside, **options)
    return found


def few(name: str) -> str:
    words = ", ".join(f"{k}={v}" for k, v in FEW.items() if k in EXPLAINERS[name].options)
    return f"{name}({words})"


def slope_is_right(name: str, model: Classifier, length_of_step: float = 1e-4, **options: Any) -> None:
    """The penalty's gradient in the weights, held against finite differences along it and along random directions."""
    x, y, inside = case()
    weights = list(model.net.parameters())

    def value() -> Tensor:
        return penalty(name, model, x, y, inside, **options).double().sum()

    slope = torch.autograd.grad(value(), weights, allow_unused=True)
    slope = [torch.zeros_like(p) if g is None else g for g, p in zip(slope, weights, strict=True)]
    size = sum(float(g.square().sum()) for g in slope) ** 0.5
    assert size > 1e-4
    generator = torch.Generator().manual_seed(5)
    for k in range(3):
        way = [g / size if k == 0 else torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in slope]
        length = sum(float(w.square().sum()) for w in way) ** 0.5
        ends = []
        for step in (length_of_step, -length_of_step):
            with torch.no_grad():
                for p, w in zip(weights, way, strict=True):
                    p += step / length * w
            ends.append(float(value().detach()))
            with torch.no_grad():
                for p, w in zip(weights, way, strict=True):
                    p -= step / length * w
        rise = (ends[0] - ends[1]) / (2 * length_of_step)
        wanted = sum(float((g * w).sum()) for g, w in zip(slope, way, strict=True)) / length
        assert abs(rise - wanted) < 0.01 * size


@every
def test_one_penalty_for_each_picture_and_none_below_zero(name):
    x, y, inside = case()
    found = penalty(name, smooth(), x, y, inside)
    assert found.shape == (len(x),)
    assert bool(found.isfinite().all())
    assert bool((found >= 0).all())
    assert float(found.detach().sum()) > 0


@every
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_in_the_weights_is_that_of_the_penalty(name, training, monkeypatch):
    model = smooth()
    model.net.train(training)
    if name == "res":  # its threshold is found anew in each step, and is no part of the gradient
        monkeypatch.setattr("clearsight.guides.res.parting_value", lambda maps, wanted: 0.4)
    slope_is_right(name, model)


@each_alone
def test_what_stands_inside_costs_least(name):
    model = smooth()
    model.net.eval()
    x, y, inside = case()
    whole, nothing = torch.ones_like(inside), torch.zeros_like(inside)
    best, some, worst = (float(penalty(name, model, x, y, i).detach().sum()) for i in (whole, inside, nothing))
    if name in ("gain", "res"):  # they ask that the map fills the annotation
        filled = float(penalty(name, model, x, y, _map_of(model, x, y)).detach().sum())
        assert filled < min(best, some, worst)
    else:
        assert best < 1e-9 < some
        assert some <= worst or name == "attention-prior"  # where nothing is inside, it does not know how far that is


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


def _map_of(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """The map itself, as the annotation."""
    maps = EXPLAINERS["grad-cam"](model, x.detach(), _answer(y))
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return ((maps - low) / (high - low).clamp_min(1e-9))[:, None].double()


def _answer(y: Tensor) -> Any:
    return ClassScore(y.argmax(1))


@each_alone
def test_a_picture_costs_the_same_in_any_batch(name):
    model = smooth()
    model.net.eval()
    x, y, inside = case()
    together = penalty(name, model, x, y, inside)
    for i in range(len(x)):
        alone = penalty(name, model, x[i : i + 1].detach().requires_grad_(), y[i : i + 1], inside[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-6, atol=1e-8)


@every
def test_nothing_of_the_network_changes(name):
    """But what a training pass over the pictures themselves leaves in BatchNorm."""
    x, y, inside = case()
    model, plain = smooth(), smooth()
    if name not in MIXES:  # their pass is not of the pictures themselves
        with torch.no_grad():
            plain(x)
    penalty(name, model, x, y, inside).sum()
    assert same(model.net, plain.net)
    assert model.net.training
    assert all(p.requires_grad and p.grad is None for p in model.net.parameters())


@each_alone
def test_the_labels_loss_shares_its_pass(name):
    model, passes = smooth(), []
    x, y, inside = case()
    catalogue("guides")[name](training_step(model), x, y, inside)  # what is measured once for a network is known then
    handle = model.net.body.register_forward_hook(lambda *_: passes.append(1))
    step = training_step(model)
    catalogue("guides")[name](step, x, y, inside)
    step.forward(x)
    handle.remove()
    assert len(passes) == (2 if name == "gain" else 1)  # whose second is of the picture without the map


@every
def test_a_pass_that_was_made_before_does_not_hide_the_network(name):
    model = smooth()
    x, y, inside = case()
    step = training_step(model)
    step.forward(x)
    torch.manual_seed(3)  # as penalty does
    found = catalogue("guides")[name](step, x, y, inside)
    torch.testing.assert_close(found, penalty(name, model, x, y, inside))


@every
def test_weight_is_a_factor_and_bad_numbers_are_refused(name):
    x, y, inside = case(2)
    model = smooth()
    one, two = (penalty(name, model, x, y, inside, weight=w) for w in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one)
    for option, p in catalogue("guides")[name].options.items():
        if isinstance(p.default, float):
            with pytest.raises(Refused, match=name):
                penalty(name, model, x, y, inside, **{option: -1.0})


@every
def test_a_picture_without_annotation_adds_nothing(name):
    x, y, inside = case()
    model = smooth()
    model.net.eval()
    call = parse(name, "guides")
    alone = guided_loss(call, training_step(model), x, y, inside)
    unknown = inside.clone()
    unknown[1:] = torch.nan
    first = guided_loss(call, training_step(model), x, y, unknown)
    if name not in MIXES:
        torch.testing.assert_close(first * len(x), penalty(name, model, x, y, inside)[0])
    assert float(alone.detach()) != float(first.detach())


@every
def test_signature_and_documentation(name):
    m = catalogue("guides")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    plain = {p.name: p.annotation for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert plain == {"step": TrainingStep, "x": Tensor, "y": Tensor, "inside": Tensor}
    assert signature.return_annotation is Tensor
    assert not m.injected
    assert m.claims <= {"mixes"}
    assert all(p.annotation in (float, bool, str, float | None) or get_origin(p.annotation) is Literal
               for p in m.options.values())  # fmt: skip
    doc = inspect.getdoc(m.fn)
    for word in ("(B, C, *S)", "(B,)", "Source:", "Refused:", ">>> "):
        assert word in doc, word
    assert len(m.summary) <= 112
    check_args_block(m)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+", m.paper)
    assert m.paper in import_module(m.fn.__module__).__doc__


@every
def test_examples_are_true(name):
    check_examples(catalogue("guides")[name])


@pytest.mark.parametrize("explainer", LEARNABLE)
def test_the_gradient_through_every_learnable_explainer_is_right(explainer):
    """Of those for ReLU by steps so short that none is crossed."""
    if "needs-relu" in EXPLAINERS[explainer].claims:
        slope_is_right("energy", smooth(activation=nn.ReLU), 1e-7, explainer=few(explainer))
    else:
        slope_is_right("energy", smooth(), explainer=few(explainer))


@pytest.mark.parametrize("explainer", [n for n in EXPLAINERS if n not in LEARNABLE])
def test_other_explainers_are_refused_by_name(explainer):
    x, y, inside = case(1)
    for guide in WITH_EXPLAINER:
        with pytest.raises(Refused, match=rf"explainer {re.escape(explainer)}: its map has no gradient") as refused:
            penalty(guide, smooth(), x, y, inside, explainer=explainer)
        assert "does not claim" not in str(refused.value)  # each says why


@pytest.mark.parametrize("inner", ["rise", "xrai"])
def test_an_inner_method_is_refused_as_well(inner):
    x, y, inside = case(1)
    with pytest.raises(Refused, match=f"explainer {inner}: its map has no gradient"):
        penalty("energy", smooth(), x, y, inside, explainer=f"smooth-grad(inner={inner}, samples=2)")


@pytest.mark.parametrize("explainer", ["integrated-gradients(steps=2)", "smooth-grad(samples=2)", "grad-cam"])
def test_passes_of_an_explainer_leave_nothing_in_batchnorm(explainer):
    x, y, inside = case()
    model, plain = smooth(), smooth()
    step = training_step(model)
    catalogue("guides")["energy"](step, x, y, inside, explainer=explainer).sum()
    step.forward(x)
    with torch.no_grad():
        plain(x)
    assert same(model.net, plain.net)


def test_an_explainer_outside_a_guide_keeps_no_graph():
    x, y, _ = case(1)
    assert not EXPLAINERS["gradient-x-input"](smooth(), x.detach(), _answer(y)).requires_grad
    assert not EXPLAINERS["grad-cam"](smooth(), x.detach(), _answer(y)).requires_grad
