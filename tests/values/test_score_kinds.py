"""Models that do not pick one class of many: one logit, labels that stand by themselves, values."""

import pytest
import timm
import torch
from torch import Tensor, nn

from clearsight import attack, explain, save, wrap
from clearsight.auditing.audit import with_model_notes
from clearsight.auditing.diagnosis import inspect
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.taking import takes_kind
from clearsight.core.targets import ClassScore, Margin, Misclassify
from clearsight.data.datasets import demo_pictures
from clearsight.errors import Refused
from clearsight.explaining.explain_input import ask, top
from clearsight.internals.scores import scores
from clearsight.models.loading import load
from clearsight.runner.run import measure

PRE = Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3)


def net(outputs: int, *, flat: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, outputs),
        ]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if flat else []))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def outputs(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("flat", [False, True], ids=["(B, 1)", "(B,)"])
def test_one_logit_is_shared_by_two_classes(flat, x):
    model = wrap(net(1, flat=flat), PRE, ["no", "yes"], scores="one-logit")
    z = model.net(model.normalised(x)).detach().reshape(-1)
    torch.testing.assert_close(outputs(model, x), torch.stack([-z / 2, z / 2], 1))
    torch.testing.assert_close(Margin(1, 0)(outputs(model, x)), z)
    torch.testing.assert_close(ClassScore(1, of="prob")(outputs(model, x)), z.sigmoid())
    torch.testing.assert_close(model.chances(outputs(model, x))[:, 1], z.sigmoid())
    yes, no = (explain(model, x, "gradient-x-input", ClassScore(k)).maps for k in (1, 0))
    assert yes.any()
    torch.testing.assert_close(yes, -no)
    broken = attack(model, x, outputs(model, x).argmax(1), "pgd", eps=0.5)
    assert torch.equal(broken.fooled, outputs(model, broken.x).argmax(1) != outputs(model, x).argmax(1))
    with pytest.raises(Refused, match=r"not one logit per picture"):
        wrap(net(2), PRE, ["no", "yes"], scores="one-logit")(x)


def test_labels_that_stand_by_themselves(x):
    model = wrap(net(4), PRE, list("abcd"), scores="multi-label")
    z = outputs(model, x)
    torch.testing.assert_close(model.chances(z), z.sigmoid())
    e = explain(model, x, "grad-cam")
    assert e.target.index.tolist() == z.argmax(1).tolist()
    assert explain(model, x, "saliency", ClassScore(2, of="sigmoid")).questions() == ["prob of c"] * 4
    region = torch.ones(4, 8, 12, dtype=torch.bool)
    assert measure(model, x, e.maps, "deletion", regions=region).isfinite().all()  # by the label's own probability
    with pytest.raises(Refused, match=r'multi-label.*of="sigmoid"'):
        explain(model, x, "saliency", ClassScore(2, of="prob"))
    for goal in (torch.tensor([0, 1, 2, 3]), Misclassify(torch.tensor([0, 1, 2, 3]))):
        with pytest.raises(Refused, match="multi-label, without one class as the answer"):
            attack(model, x, goal)
    with pytest.raises(Refused, match="an audit asks which one class"):
        with_model_notes(demo_pictures(), model)
    assert inspect(model).problems == ()
    assert [a["probability"] for a in top(model, z[0], 2)] == pytest.approx(
        sorted(z[0].sigmoid().tolist(), reverse=True)[:2], abs=1e-5
    )


@pytest.mark.parametrize("flat", [False, True], ids=["(B, 1)", "(B,)"])
def test_a_value(flat, x):
    model = wrap(net(1, flat=flat), PRE, ["steering angle"], scores="values")
    e = explain(model, x, "integrated-gradients(steps=200)")
    z = outputs(model, x)[:, 0]
    torch.testing.assert_close(e.maps.flatten(1).sum(1), z - outputs(model, x * 0)[:, 0], rtol=1e-2, atol=1e-4)
    assert e.questions() == ["value of steering angle"] * 4
    assert top(model, outputs(model, x)[0], 3) == [
        {"class": 0, "label": "steering angle", "value": pytest.approx(float(z[0]), abs=1e-5)}
    ]
    target, rows, chances = ask(model, "top1", outputs(model, x)[:1])
    assert (target.of, rows, chances) == ("value", 1, None)
    assert inspect(model).problems == ()
    with pytest.raises(Refused, match=r'values.*of="value"'):
        explain(model, x, "saliency", ClassScore(0, of="prob"))


def test_of_several_values_one_must_be_named(x):
    model = wrap(net(3), PRE, ["left", "right", "speed"], scores="values")
    with pytest.raises(Refused, match="gives 3 values: say which"):
        explain(model, x, "saliency")
    with pytest.raises(Refused, match=r"name one, such as 'left'"):
        ask(model, "top1", outputs(model, x)[:1])
    target, _, _ = ask(model, "speed", outputs(model, x)[:1])
    assert target.words(model.labels) == ["value of speed"]
    assert explain(model, x, "saliency", Margin(0, 2)).questions() == ["left rather than speed"] * 4


@pytest.mark.parametrize(("kind", "n"), [("one-logit", 1), ("multi-label", 3), ("values", 2)])
def test_the_kind_survives_a_run_folder(kind, n, x, tmp_path):
    labels = ["no", "yes"] if kind == "one-logit" else list("abc")[:n]
    model = wrap(timm.create_model("resnet10t", num_classes=n, pretrained=False), PRE, labels, scores=kind)
    model = Classifier(model.net, model.preprocess, model.labels, "timm:resnet10t", scores=kind)
    again = load(save(model, tmp_path / "run", architecture="timm:resnet10t"))
    assert again.scores == kind
    with model.undisturbed(), again.undisturbed():
        torch.testing.assert_close(scores(again, x), scores(model, x))


@pytest.mark.slow
def test_every_explainer_takes_every_kind_of_output(x):
    """Where what is asked is a number, how it came about is nothing to a method."""
    kinds = [
        wrap(net(1), PRE, ["no", "yes"], scores="one-logit"),
        wrap(net(2), PRE, ["a", "b"], scores="multi-label"),
        wrap(net(1), PRE, ["value"], scores="values"),
    ]
    few = {"samples": 4, "steps": 3, "masks": 4, "iterations": 2, "window": 6, "cells": 3}
    for name, method in catalogue("explainers").items():
        if not takes_kind(method, "classifier"):
            continue
        if "references" in method.options and method.options["references"].default == "":
            continue  # wants a folder: see its own tests
        words = ", ".join(f"{k}={v}" for k, v in few.items() if k in method.options)
        for model in kinds:
            if name == "contrastive-lrp" and model.scores == "values":
                with pytest.raises(Refused, match="compares a class with the others"):
                    explain(model, x, name)
                continue
            assert explain(model, x[:2], f"{name}({words})").maps.isfinite().all(), (name, model.scores)


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(Refused, match="did you mean multi-label"):
        wrap(net(2), PRE, ["a", "b"], scores="multilabel")
    with pytest.raises(Refused, match="at least two classes"):
        wrap(net(1), PRE, ["a"])
