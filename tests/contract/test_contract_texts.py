"""The contract of attacks on texts: their manners on one-hot texts.  A new file with the claim is tested as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.targets import Become
from clearsight.data.text_encoding import decode, one_hot, text_preprocess
from clearsight.errors import Refused
from clearsight.runner.run import attack

OF_TEXTS = [n for n, m in catalogue("attacks").items() if "texts-only" in m.claims]
each = pytest.mark.parametrize("name", OF_TEXTS)
WORDS = ["abba cab", "dada\n", "bad", "cabbage?", "deaf dab", "a", "bed", "cafe face"]


@pytest.fixture(scope="module")
def taught() -> tuple[Classifier, Tensor, Tensor]:
    """A character CNN that tells whether a text has more of a, b and c than of d, e and f, and eight texts."""
    pre = text_preprocess(12, "abcdef ")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = catalogue("networks")["character-cnn"](2, (8, 12), width=8, embedding=4)
        letters = torch.randint(0, 8, (256, 12))
        x = nn.functional.one_hot(letters, 8).transpose(1, 2).float()
        y = (x[:, :3].sum((1, 2)) > x[:, 3:6].sum((1, 2))).long()
        optimiser = torch.optim.Adam(net.parameters(), 0.02)
        for _ in range(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    model = Classifier(net.eval(), pre, ("second", "first"))
    texts = one_hot(model, *WORDS)
    with torch.no_grad():
        return model, texts, model(texts).argmax(1)


def is_text(x: Tensor, clean: Tensor) -> bool:
    """Whether x is one-hot, with as much padding as the clean text, and no letter became an unknown one."""
    whole = bool(((x == 0) | (x == 1)).all()) and torch.equal(x.sum(1), clean.sum(1))
    return whole and bool((x[:, -1] <= clean[:, -1]).all())


def test_there_is_one() -> None:
    assert OF_TEXTS
    assert all("characters" in catalogue("attacks")[n].claims for n in OF_TEXTS)


@each
@pytest.mark.parametrize("eps", [1, 3, 12])
def test_texts_stay_texts_within_their_budget(name: str, eps: int, taught: tuple[Classifier, Tensor, Tensor]) -> None:
    model, x, y = taught
    a = attack(model, x, y, name, eps=eps)
    assert is_text(a.x, x)
    assert (a.norm, a.eps, a.overstep) == ("characters", eps, 0)
    assert a.distance.max() <= eps
    assert a.distance.max() == a.distance.max().round()
    with torch.no_grad():
        assert torch.equal(a.fooled, model(a.x).argmax(1) != y)
    changed = (a.x != x).any(1).sum(1)
    assert torch.equal(changed.float(), a.distance)
    for clean, x_adv, word in zip(x, a.x, WORDS, strict=True):
        text = decode(x_adv, model.preprocess.alphabet, word)
        assert len(text) == len(decode(clean, model.preprocess.alphabet, word)) == len(word)
        assert torch.equal(one_hot(model, text)[0], x_adv)


@each
def test_more_budget_fools_no_fewer_and_everything_fools_most(
    name: str, taught: tuple[Classifier, Tensor, Tensor]
) -> None:
    model, x, y = taught
    fooled = [int(attack(model, x, y, name, eps=eps).fooled.sum()) for eps in (0, 1, 2, 4, 12)]
    assert fooled == sorted(fooled)
    assert fooled[0] == 0
    assert fooled[-1] >= 7
    a = attack(model, x, Become(1 - y), name, eps=12)
    with torch.no_grad():
        assert torch.equal(a.fooled, model(a.x).argmax(1) == 1 - y)


@each
def test_one_batch_is_many_batches_in_any_order_and_nothing_is_touched(
    name: str, taught: tuple[Classifier, Tensor, Tensor]
) -> None:
    model, x, y = taught
    before, weights = x.clone(), copy.deepcopy(model.net.state_dict())
    whole = attack(model, x, y, name, eps=3)
    back = torch.arange(len(x) - 1, -1, -1)
    assert torch.equal(attack(model, x, y, name, eps=3, batch=3).x, whole.x)
    assert torch.equal(attack(model, x[back], y[back], name, eps=3).x, whole.x[back])
    assert (
        torch.equal(attack(model, x, y, name, eps=3, seed=7).x, whole.x)
        or "stochastic" in catalogue("attacks")[name].claims
    )
    assert torch.equal(x, before)
    assert all(torch.equal(v, weights[k]) for k, v in model.net.state_dict().items())
    assert all((p.requires_grad and p.grad is None) or p.requires_grad for p in model.net.parameters())


@each
def test_who_is_wrong_already_is_left_alone(name: str, taught: tuple[Classifier, Tensor, Tensor]) -> None:
    model, x, y = taught
    wrong = torch.arange(len(y)) % 2 == 0
    a = attack(model, x, torch.where(wrong, 1 - y, y), name, eps=12)
    assert torch.equal(a.already, wrong)
    assert torch.equal(a.x[wrong], x[wrong])
    assert a.fooled.any()


@each
def test_inputs_that_are_no_texts_and_broken_budgets_are_refused(
    name: str, taught: tuple[Classifier, Tensor, Tensor]
) -> None:
    model, x, y = taught
    for bad in (x * 0.5, (x + 0.0).index_fill(1, torch.tensor([0]), 1.0), torch.rand_like(x)):
        with pytest.raises(Refused, match="one-hot"):
            attack(model, bad, y, name, eps=2)
    for eps in (0.5, -1, float("nan"), float("inf")):
        with pytest.raises(Refused, match=r"eps .*: give"):
            attack(model, x, y, name, eps=eps)
