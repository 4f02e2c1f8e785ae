"""Attacks on the characters of texts: exact on linear models, verified where the gradient misleads, and recounted."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.methods import Method
from clearsight.core.norms import norm_of, overstep, perturbation_norm, project
from clearsight.core.targets import Goal, Misclassify
from clearsight.data.text_encoding import one_hot, text_preprocess
from clearsight.errors import Refused
from clearsight.runner.run import attack
from clearsight.testing import linear_text


def text(*letters: int, length: int = 0, of: int = 3) -> Tensor:
    """A one-hot text (1, of, length) of these letters."""
    x = torch.zeros(1, of, max(length, len(letters)))
    x[0, list(letters), range(len(letters))] = 1
    return x


def letters_of(x: Tensor) -> list[int]:
    return [int(k) if bool(column.any()) else -1 for column, k in zip(x[0].T, x[0].argmax(0), strict=True)]


# The attack ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1, 2, 3])
def test_on_a_linear_model_it_is_the_best_change_there_is(eps: int) -> None:
    """Against every text that differs in at most eps of four characters."""
    drawn = torch.Generator().manual_seed(eps)
    weight = torch.randn(2, 3, 5, generator=drawn)
    model, clean = linear_text(weight.tolist()), text(0, 2, 1, 1, length=5)
    right = torch.tensor([int(model(clean).argmax())])
    goal = Misclassify(right)
    with torch.no_grad():
        losses = [
            float(goal.loss(model(text(*other, length=5))))
            for other in itertools.product(range(3), repeat=4)
            if sum(a != b for a, b in zip(other, (0, 2, 1, 1), strict=True)) <= eps
        ]
    call = parse("character-substitution(candidates=4)", "attacks")
    with torch.no_grad():
        margin = float(goal.loss(model(clean)))
    found = call.method(model, clean, Never(goal), eps=eps, candidates=4)
    assert perturbation_norm(found - clean, "characters") <= eps
    with torch.no_grad():
        assert float(goal.loss(model(found))) == pytest.approx(min(losses), abs=1e-6)
    assert min(losses) < margin


class Never:
    """A goal that is never met, so that an attack goes on until its budget is spent."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal

    def loss(self, outputs: Tensor) -> Tensor:
        return self.goal.loss(outputs)

    def met(self, outputs: Tensor) -> Tensor:
        return torch.zeros(len(outputs), dtype=torch.bool)

    def __getitem__(self, rows: Tensor | slice) -> Never:
        return Never(self.goal[rows])


class Flat(nn.Module):
    """The letter 1 at the first place promises a fall of 5, and gives 0.1; at the second place it gives 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        promised, kept = 1 - 5 * x[:, 1, 0], 1 - 0.5 * x[:, 1, 1]
        first = promised.clamp_min(0.9) + kept
        return torch.stack([first, torch.zeros_like(first)], 1)


def test_the_network_judges_what_the_gradient_promises() -> None:
    model = Classifier(Flat(), linear_text([[[0.0] * 2] * 3] * 2).preprocess, ("a", "b"))
    x, goal = text(0, 0), Misclassify(torch.tensor([0]))
    run = parse("character-substitution", "attacks").method
    assert letters_of(run(model, x, goal, eps=1, candidates=1)) == [1, 0]
    assert letters_of(run(model, x, goal, eps=1, candidates=2)) == [0, 1]
    assert letters_of(run(model, x, goal, eps=2, candidates=2)) == [1, 1]


def test_where_no_replacement_helps_the_text_stays() -> None:
    best = linear_text([[[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0]] * 3])
    a = attack(best, text(0, 0), Misclassify(torch.tensor([[True, False]])), "character-substitution", eps=2)
    assert letters_of(a.x) == [0, 0]
    assert not a.fooled


def test_the_estimate_is_of_the_letter_that_comes_and_of_the_one_that_goes() -> None:
    """At the second place the other letter has the larger slope, and still gains more: 5 to 3, and not 1 to 0.5."""
    model = linear_text([[[1.0, 5.0], [0.5, 3.0], [9.0, 9.0]], [[0.0, 0.0]] * 3])
    run = parse("character-substitution", "attacks").method
    assert letters_of(run(model, text(0, 0), Never(Misclassify(torch.tensor([0]))), eps=1, candidates=1)) == [0, 1]


class Together(nn.Module):
    """The letter 1 at either place makes the first class a little likelier, at both places far less likely."""

    def forward(self, x: Tensor) -> Tensor:
        first = 1 + 0.1 * x[:, 1].sum(1) + 0.2 * x[:, 2].sum(1) - 5 * x[:, 1, 0] * x[:, 1, 1]
        return torch.stack([first, torch.zeros_like(first)], 1)


class Bent(nn.Module):
    """At the first place the letter 1 has the steepest slope, and the letter 2 falls furthest."""

    def forward(self, x: Tensor) -> Tensor:
        one, two = x[:, 1, 0], x[:, 2, 0]
        first = 1 - 5 * one + 4 * one**2 - two - 2 * two**2
        return torch.stack([first, torch.zeros_like(first)], 1)


@pytest.mark.parametrize(("net", "found"), [(Together(), [0, 0]), (Bent(), [1, 0])])
def test_a_step_is_kept_where_it_helps_and_then_stays(net: nn.Module, found: list[int]) -> None:
    """No step uphill is made for what may lie behind it, and no place is replaced twice."""
    model = Classifier(net, linear_text([[[0.0] * 2] * 3] * 2).preprocess, ("a", "b"))
    run = parse("character-substitution", "attacks").method
    assert letters_of(run(model, text(0, 0), Never(Misclassify(torch.tensor([0]))), eps=2, candidates=4)) == found


def test_no_place_is_replaced_twice_and_padding_stays() -> None:
    weight = [[[0.0, 0.0, 9.0], [-1.0, -0.5, -9.0], [-1.5, 0.0, -9.0]], [[0.0] * 3] * 3]
    run = parse("character-substitution", "attacks").method
    found = run(linear_text(weight), text(0, 0, length=3), Never(Misclassify(torch.tensor([0]))), eps=3, candidates=8)
    assert letters_of(found) == [2, 1, -1]


def test_the_unknown_character_is_never_written() -> None:
    """It would be best, but stands for no character; a text that has one keeps it, or loses it to a letter."""
    weight = [[[1.0], [0.5], [-9.0]], [[0.0]] * 3]
    x, goal = text(0), Never(Misclassify(torch.tensor([0])))
    run = parse("character-substitution", "attacks").method
    assert letters_of(run(linear_text(weight), x, goal, eps=1, candidates=8)) == [2]
    assert letters_of(run(linear_text(weight, "ab"), x, goal, eps=1, candidates=8)) == [1]
    better = [[[1.0], [-5.0], [3.0]], [[0.0]] * 3]
    assert letters_of(run(linear_text(better, "ab"), text(2), goal, eps=1, candidates=8)) == [1]


def test_candidates_below_1_are_refused() -> None:
    with pytest.raises(Refused, match=r"candidates=0\): at least 1"):
        attack(
            linear_text([[[1.0]] * 3, [[0.0]] * 3]), text(0), torch.tensor([0]), "character-substitution(candidates=0)"
        )


# The runner's recount ------------------------------------------------------------------------------------------------


def test_a_change_is_as_many_characters_as_places_differ() -> None:
    assert perturbation_norm(text(0, 1, 2) - text(0, 2, 1), "characters").tolist() == [2]
    assert perturbation_norm(text(0, 1) - text(0, 1), "characters").tolist() == [0]
    assert norm_of(parse("character-substitution", "attacks")) == "characters"


def test_projected_are_whole_characters_within_the_budget() -> None:
    x = text(0, 1, 2, length=4)
    raw = text(2, 2, 2, 2).squeeze(0)[None] * 0.6 + 0.1
    assert letters_of(project(raw, x, 4.0, "characters")) == [2, 2, 2, -1]
    assert letters_of(project(raw, x, 1.0, "characters")) == [2, 1, 2, -1]
    assert torch.equal(project(raw, x, 0.0, "characters"), x)
    assert torch.equal(project(raw * 0, x, 4.0, "characters"), x)  # nothing is taken out
    assert torch.equal(
        project(raw.expand(2, -1, -1), x.expand(2, -1, -1), torch.tensor([0.0, 9.0]), "characters")[0], x[0]
    )
    assert set(project(raw, x, 4.0, "characters").unique().tolist()) == {0.0, 1.0}
    assert overstep(text(2, 2, 1), text(2, 1, 2), "characters") == 2.0
    assert overstep(x + 0.25, x, "linf") == 0.25


def test_the_runner_takes_back_what_goes_beyond() -> None:
    """An attack that rewrites everything, padding too, with a budget of two characters."""

    def wild(model: Classifier, x: Tensor, goal: Goal, *, eps: float) -> Tensor:
        return text(2, 2, 2, 2, 2)

    call = Call(Method(wild, claims=frozenset({"characters"}), name="wild"))
    model = linear_text([[[1.0] * 5, [1.0] * 5, [0.0] * 5], [[2.5] * 5] * 3])
    x = text(0, 1, 0, 1, length=5)
    a = attack(model, x, Misclassify(model(x).argmax(1)), call, eps=2)
    assert letters_of(a.x) == [2, 2, 0, 1, -1]
    assert (a.overstep, float(a.distance), a.norm) == (3.0, 2.0, "characters")


def test_a_budget_is_8_characters_where_none_is_given() -> None:
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4 * 20, 2)), text_preprocess(20, "abc"), ("a", "b"))
    x = one_hot(model, "a" * 20)
    assert attack(model, x, model(x).argmax(1), "character-substitution").eps == 8.0
    assert attack(model, x, model(x).argmax(1), "character-substitution(eps=3)").eps == 3.0
    with pytest.raises(Refused, match=r"eps 0.5: give the number of characters that character-substitution may change"):
        attack(model, x, model(x).argmax(1), "character-substitution", eps=0.5)
