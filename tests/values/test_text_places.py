"""Texts under removal: the places are the characters, and a removed one leaves its place empty."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.map_tests import examine
from clearsight.core import rng
from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.places import cropped, occupied
from clearsight.core.targets import ClassScore
from clearsight.data.text_encoding import one_hot, text_preprocess
from clearsight.errors import Refused
from clearsight.metrics.common.likeness import likeness
from clearsight.runner.run import explain, measure
from clearsight.testing import linear_text

FILLED = ("insertion", "deletion", "sensitivity-n(samples=5)", "infidelity(samples=5)")
CALLS = [f"{m.rstrip(')')}{', ' if '(' in m else '('}fill={f})" for m in FILLED for f in ("mean", "blur", "inpaint")]


def letters(length: int) -> Classifier:
    """A linear model of texts of letters a and b whose weights of the first places do not depend on the length."""
    torch.manual_seed(0)
    weight = torch.randn(2, 3, 20)[:, :, :length]
    return linear_text(weight.tolist(), alphabet="ab")


@pytest.mark.parametrize("metric", ["road(steps=1)", "road", "insertion(steps=6)", "deletion(steps=4)"])
def test_how_long_a_text_could_be_changes_nothing(metric: str) -> None:
    """A text of seven characters has the same number where the model reads seven characters and where it reads 20."""
    heat, values = torch.randn(1, 20), []
    for length in (7, 20):
        model = letters(length)
        x = one_hot(model, "abbabab")
        values.append(measure(model, x, heat[:, :length], metric, ClassScore(0)).item())
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert values[0] != 0


def test_the_portions_of_a_deletion_are_of_the_characters() -> None:
    """Of 3 and 1 in two of four places: 4, 1, 0 without none, the first and both, an area of 1.5."""
    model = linear_text([[[3.0, 1.0, 9.0, 9.0], [0.0] * 4], [[0.0] * 4] * 2], alphabet="a")
    x, heat = one_hot(model, "aa"), torch.tensor([[2.0, 1.0, 5.0, 5.0]])
    assert measure(model, x, heat, "deletion(steps=2)", ClassScore(0)).item() == 1.5
    assert measure(model, x, heat, "insertion(steps=2)", ClassScore(0)).item() == 2.5
    assert measure(model, x, heat, "road(steps=1)", ClassScore(0)).item() == 1.0  # (3 - 1) / 2


@pytest.mark.parametrize("metric", ["road", *CALLS])
def test_nothing_stands_between_two_letters(metric: str) -> None:
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return torch.stack([x[:, 0].sum(1), x[:, 1].sum(1)], 1)

    model = Classifier(Watched(), text_preprocess(9, "ab"), ("a", "b"))
    x, call = one_hot(model, "abbabb"), parse(metric, "metrics")
    with rng.seeded(0, x):
        call.method(model, x, ClassScore(0), torch.randn(1, 9), **call.options)
    given = torch.cat(seen)
    assert bool(((given == 0) | (given == x)).all())  # every letter is its own, or gone
    assert len({*given.sum((1, 2)).tolist()}) > 1


def test_the_control_centre_is_the_middle_of_the_text() -> None:
    model = letters(20)
    maps = explain(model, one_hot(model, "abbab", "ab"), "centre", ClassScore(0)).maps
    assert maps[0, :5].tolist() == pytest.approx(maps[0, :5].flip(0).tolist())
    assert maps[0].argmax() == 2
    assert maps[0, 0].item() == pytest.approx(torch.exp(torch.tensor(-((0.4 / 0.25) ** 2) / 2)).item())
    assert maps[1, 0] == pytest.approx(maps[1, 1])
    assert explain(model, one_hot(model, "abb"), "centre", ClassScore(0)).maps[0, :3].argmax() == 1


def test_a_text_ends_with_its_last_character_also_where_one_before_is_removed() -> None:
    model = letters(6)
    x = one_hot(model, "aba")
    x[:, :, 1] = 0
    inside = occupied(model, x)
    assert inside is not None
    assert inside.tolist() == [[True, True, True, False, False, False]]
    assert occupied(replace(model, preprocess=replace(model.preprocess, alphabet="")), x) is None
    assert [m.tolist() for m in cropped(torch.arange(6.0)[None], inside)] == [[0.0, 1.0, 2.0]]


def test_what_lies_behind_the_end_makes_no_maps_alike() -> None:
    inside = torch.tensor([[True] * 4 + [False] * 12])
    one, other = torch.zeros(1, 16), torch.zeros(1, 16)
    one[0, :4], other[0, :4] = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert likeness(one, other, "spearman", False).item() > 0.5
    assert likeness(one, other, "spearman", False, inside).item() == pytest.approx(-1)


def test_a_map_that_is_the_same_on_all_characters_is_blank_whatever_lies_behind() -> None:
    model = linear_text([[[2.0] * 3, [2.0] * 3], [[0.0] * 3] * 2], alphabet="a")
    found = explain(model, one_hot(model, "aa"), "gradient-x-input", ClassScore(0))
    assert found.maps.tolist() == [[2.0, 2.0, 0.0]]
    ((test,),) = examine(model, [found])
    assert test.failed == ("the same everywhere, so it says nothing",)


@pytest.mark.parametrize("metric", ["max-sensitivity", "pixel-flipping"])
def test_metrics_that_change_pixels_a_little_are_refused(metric: str) -> None:
    model = letters(7)
    x = one_hot(model, "abba")
    maps = cs.explain(model, x, "saliency").maps
    with pytest.raises(Refused, match="a character has no small change"):
        measure(model, x, maps, metric, method="saliency")
