"""The gate before a model that is asked and not seen: what is answered, what is paid, and what is kept."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.core import passes
from clearsight.core.blackbox import BlackBox, OutOfQueries
from clearsight.core.classifier import Classifier
from clearsight.core.norms import perturbation_norm, project
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Become, Misclassify, margin
from clearsight.errors import Refused
from clearsight.runner.run import attack
from clearsight.testing import linear

RIGHT = torch.tensor([0, 0, 0])


def scale() -> Classifier:
    """Two pixels: the first speaks for class 0, the second for class 1 and a little for class 2."""
    return linear([[2.0, 0.0], [0.0, 2.0], [0.0, 1.0]])


def clean() -> Tensor:
    return torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]).view(3, 1, 1, 2)


def gate(queries: int = 10, eps: float = 1.0, model: Classifier | None = None, **options: Any) -> BlackBox:
    return BlackBox(model or scale(), clean(), Misclassify(RIGHT), queries=queries, eps=eps, **options)


def pixels(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor(pairs).view(-1, 1, 1, 2)


def watched(model: Classifier) -> list[Tensor]:
    """All that goes into the network from now on."""
    seen: list[Tensor] = []
    model.net.register_forward_hook(lambda _m, args, _out: seen.append(args[0].clone()))
    return seen


def rows(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


# --- what is paid -----------------------------------------------------------------------------------------------------


def test_the_stop_is_hard_and_to_the_query():
    model = scale()
    box, seen = gate(queries=3, model=model), watched(model)
    loss, met = box.ask(pixels(*[(0.5 - k / 10, 0.25) for k in range(5)]), rows(1, 1, 1, 1, 1))
    assert [len(s) for s in seen] == [3]
    torch.testing.assert_close(loss, torch.tensor([0.5, 0.3, 0.1, torch.inf, torch.inf]))  # 2 x1 - 2 x2
    assert not met.any()
    assert box.used.tolist() == [0, 3, 0]
    assert box.left().tolist() == [3, 0, 3]
    for ask in box.loss, box.met, box.ask:
        with pytest.raises(OutOfQueries):
            ask(pixels((0.1, 0.9)), rows(1))
    assert len(seen) == 1
    assert not box.meets.any()


def test_who_has_queries_left_is_answered_beside_who_has_none():
    model = scale()
    box = gate(queries=2, model=model)
    box.met(pixels((0.9, 0.1), (0.9, 0.1)), rows(0, 0))
    seen = watched(model)
    loss, met = box.ask(pixels((0.1, 0.9), (0.2, 0.9), (0.1, 0.9), (0.1, 0.8), (0.3, 0.9)), rows(0, 2, 0, 2, 2))
    assert met.tolist() == [False, True, False, True, False]
    torch.testing.assert_close(loss, torch.tensor([torch.inf, -1.4, torch.inf, -1.4, torch.inf]))
    assert sum(len(s) for s in seen) == 2
    assert box.used.tolist() == [2, 0, 2]
    assert box.left(rows(2, 1)).tolist() == [0, 2]


def test_each_version_of_a_call_gets_its_own_answer():
    """Whatever their order, and in more than one pass through the network."""
    box = gate(queries=50)
    z = torch.rand(40, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    of = torch.arange(40) % 3
    loss, met = box.ask(z, of)
    first, second = z.flatten(1).unbind(1)
    torch.testing.assert_close(loss, 2 * first - 2 * second)
    assert torch.equal(met, second > first)
    assert box.used.tolist() == [14, 13, 13]


def test_who_asks_until_one_is_better_pays_until_then():
    """The first picture has a lower loss at its second version, the second meets the goal at once, the third never."""
    versions = [(0.9, 0.1), (0.7, 0.1), (0.1, 0.9), (0.2, 0.9), (0.6, 0.1), (0.7, 0.3), (0.8, 0.3), (0.9, 0.1)]
    of, nth = rows(0, 0, 0, 1, 1, 2, 2, 2), rows(1, 2, 3, 1, 2, 1, 2, 3)
    model = scale()
    box, seen = gate(queries=5, model=model), watched(model)
    with passes.counted(model.net) as counted:
        loss, met, asked = box.ask_until_better(pixels(*versions), of, nth, torch.tensor([1.5] * 5 + [0.5] * 3))
    assert asked.tolist() == [True, True, False, True, False, True, True, True]
    torch.testing.assert_close(loss, torch.tensor([1.6, 1.2, torch.inf, -1.4, torch.inf, 0.8, 1.0, 1.6]))
    assert met.tolist() == [False] * 3 + [True] + [False] * 4
    assert box.used.tolist() == [2, 1, 3]
    assert box.first.tolist() == [0, 1, 0]
    assert counted.forwards == 6
    assert [len(s) for s in seen] == [8]
    assert box.meets.tolist() == [False, True, False]
    torch.testing.assert_close(box.best(None), pixels((0.7, 0.1), (0.2, 0.9), (0.7, 0.3)))  # not one it never asked for


def test_what_is_known_is_paid_for_and_not_seen_again():
    """The first picture's second version is better, the second's are all known, the third's known one comes first."""
    versions = [(0.9, 0.1), (0.7, 0.1), (0.1, 0.9), (0.6, 0.1), (0.6, 0.1), (0.7, 0.3), (0.1, 0.9)]
    of, nth = rows(0, 0, 0, 1, 1, 2, 2), rows(1, 2, 3, 1, 2, 1, 2)
    low = torch.tensor([1.5, 1.5, 1.5, 1.1, 1.1, 0.6, 0.6])
    known = torch.tensor([True, False, False, True, True, True, False])
    model = scale()
    box, seen = gate(queries=5, model=model), watched(model)
    with passes.counted(model.net) as counted:
        loss, met, asked = box.ask_until_better(pixels(*versions)[~known], of, nth, low, known)
    assert asked.tolist() == [True, True, False, True, True, True, True]
    torch.testing.assert_close(loss, torch.tensor([1.5, 1.2, torch.inf, 1.1, 1.1, 0.6, -1.6]))
    assert met.tolist() == [False] * 6 + [True]
    assert box.used.tolist() == [2, 2, 2]
    assert box.first.tolist() == [0, 0, 2]
    assert [len(s) for s in seen] == [3]
    assert counted.forwards == 6
    torch.testing.assert_close(box.best(None), torch.cat([pixels((0.7, 0.1)), clean()[1:2], pixels((0.1, 0.9))]))
    all_known = torch.ones(2, dtype=torch.bool)
    assert box.ask_until_better(clean()[:0], rows(1, 1), rows(1, 2), low[3:5], all_known)[2].all()
    assert box.used.tolist() == [2, 4, 2]
    assert [len(s) for s in seen] == [3]
    mixed = torch.tensor([True, False, False, False])  # the second picture has one query left, the third has three
    _, met, asked = box.ask_until_better(
        pixels((0.1, 0.9), (0.9, 0.1), (0.1, 0.9)), rows(1, 1, 2, 2), rows(1, 2, 1, 2), torch.zeros(4), mixed
    )
    assert asked.tolist() == [True, False, True, True]
    assert met.tolist() == [False, False, False, True]
    assert box.used.tolist() == [2, 5, 4]
    assert [len(s) for s in seen] == [3, 2]


@pytest.mark.parametrize("known", [None, torch.tensor([True, False, False])])
def test_an_answer_that_is_thrown_away_does_not_say_how_large_outputs_are(known):
    """Its output of 1e7 would make a difference of 1 count as rounding."""
    box = gate(model=linear([[0.0, -1.0], [0.0, 1.0], [-1e7, 0.0]]))
    versions = pixels((0.0, 0.0), (0.0, 0.5), (1.0, 0.1))
    sent = versions if known is None else versions[~known]
    _, met, asked = box.ask_until_better(sent, rows(0, 0, 0), rows(1, 2, 3), torch.zeros(3), known)
    assert (met.tolist(), asked.tolist()) == ([False, True, False], [True, True, False])
    assert box.ask(pixels((0.0, 0.5)), rows(0))[1].tolist() == [True]


@pytest.mark.parametrize("seed", range(4))
def test_asking_until_one_is_better_is_asking_one_after_the_other(seed):
    """Also where queries run out in between, and where the outputs are so large that little beyond the border is none.

    The network's outputs grow with the second pixel, and so does what counts as rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(12, 1, 1, 2, generator=generator)
    z[..., 1:] = torch.where(torch.rand(12, 1, 1, 1, generator=generator) < 0.3, z[..., :1] + 2e-6, z[..., 1:])
    of, nth = rows(*[0] * 4, *[1] * 4, *[2] * 4), rows(*[1, 2, 3, 4] * 3)
    low = torch.full((12,), -0.2)
    together, in_turn = gate(queries=3), gate(queries=3)
    loss, met, asked = together.ask_until_better(z, of, nth, low)
    for k in range(3):
        for j in range(4):
            i = 4 * k + j
            if j == 3:
                assert not asked[i]
                break
            assert asked[i]
            one_loss, one_met = in_turn.ask(z[i : i + 1], rows(k))
            torch.testing.assert_close(one_loss, loss[i : i + 1])
            assert bool(one_met) == bool(met[i])
            if bool(one_met) or float(one_loss) < -0.2:
                assert not asked[i + 1 : 4 * k + 4].any()
                break
    for name in "used", "first", "meets":
        assert torch.equal(getattr(together, name), getattr(in_turn, name)), name
    torch.testing.assert_close(together.best(None), in_turn.best(None))


def test_the_largest_output_counts_from_the_version_that_has_it():
    """An output twice as large makes rounding of what lies beyond the border; only from then on."""
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    near = (0.5, 0.5 + 1.5e-6)
    for versions, wanted in (((0.0, 0.0), near), True), (((1.0, 0.0), near), False), ((near, (1.0, 0.0)), True):
        box = BlackBox(model, clean()[:1], Misclassify(RIGHT[:1]), queries=9, eps=1.0)
        _, met, _ = box.ask_until_better(pixels(*versions), rows(0, 0), rows(1, 2), torch.tensor([-1.0, -1.0]))
        assert bool(met.any()) == wanted, versions


def test_nothing_asked_is_nothing_paid():
    box = gate(queries=1)
    box.met(clean(), rows(0, 1, 2))
    loss, met = box.ask(clean()[:0], rows())
    assert len(loss) == len(met) == 0
    with pytest.raises(ValueError, match="2 versions of 1 pictures"):
        box.met(clean()[:2], rows(0))


# --- what is answered -------------------------------------------------------------------------------------------------


def test_logits_and_probabilities():
    """At (0.5, 0.25) the logits are 1, 0.5, 0.25."""
    z, p = pixels((0.5, 0.25)), torch.tensor([1, 0.5, 0.25]).softmax(0)
    assert p.tolist() == pytest.approx([0.4810, 0.2918, 0.2272], abs=1e-4)
    assert gate().loss(z, rows(0)).item() == pytest.approx(0.5)
    assert gate(access="probs").loss(z, rows(0)).item() == pytest.approx(0.5)
    assert gate(access="probs", digits=1).loss(z, rows(0)).item() == pytest.approx(np.log(0.5 / 0.3))
    assert gate(access="probs", digits=2).loss(z, rows(0)).item() == pytest.approx(np.log(0.48 / 0.29))


def test_what_is_rounded_away_is_not_seen():
    box = gate(access="probs", digits=1)
    a, b = box.loss(pixels((0.5, 0.25), (0.51, 0.25)), rows(0, 0))
    assert a == b
    assert box.loss(pixels((0.9, 0.0)), rows(0)) > a


def test_the_top_of_the_scores():
    """Of the others the rest is shared: for class 2 as the goal, what is not told is all alike."""
    z, (p, q, r) = pixels((0.5, 0.25)), torch.tensor([1, 0.5, 0.25]).softmax(0).tolist()
    goal = Become(torch.tensor([2]))

    def loss(access: str, **options: Any) -> float:
        return BlackBox(scale(), clean()[:1], goal, eps=1, access=access, **options).loss(z, rows(0)).item()

    assert loss("top-3") == loss("probs") == loss("top-7") == pytest.approx(np.log(p / r), rel=1e-4)
    assert loss("top-2") == pytest.approx(np.log(p / r), rel=1e-4)  # what two leave is all the third's
    assert loss("top-1") == pytest.approx(np.log(p / ((q + r) / 2)), rel=1e-4)
    assert loss("top-1", digits=1) == pytest.approx(np.log(0.5 / 0.25), rel=1e-4)


def test_nothing_untold_is_above_what_is_told():
    """Of 40 classes the first has a probability of 0.04, rounded to 0.0: nobody knows that the others have 0.025."""
    model = linear([[0.5, 0.0], *[[0.0, 0.0]] * 39])
    box = BlackBox(model, clean()[:1], Misclassify(torch.tensor([0])), eps=1, access="top-1", digits=1)
    assert box.loss(pixels((0.9, 0.1)), rows(0)).item() == 0


def test_labels_alone():
    box = gate(access="label")
    assert box.met(pixels((0.6, 0.5), (0.5, 0.6)), rows(0, 0)).tolist() == [False, True]
    for ask in box.loss, box.ask:
        with pytest.raises(Refused, match="hop-skip-jump"):
            ask(clean(), rows(0, 1, 2))
    assert box.used.tolist() == [2, 0, 0]


def test_a_goal_without_a_margin_is_asked_for_its_loss():
    class Darker:
        def loss(self, outputs: Tensor) -> Tensor:
            return outputs[:, 0] - 1

        def met(self, outputs: Tensor) -> Tensor:
            return outputs[:, 0] < 1

        def __getitem__(self, _: Any) -> "Darker":
            return self

    box = BlackBox(scale(), clean(), Darker(), eps=1)
    loss, met = box.ask(pixels((0.75, 0.0), (0.25, 0.0)), rows(0, 1))
    assert loss.tolist() == [0.5, -0.5]
    assert met.tolist() == [False, True]
    assert margin(Darker(), torch.tensor([[3.0]])).item() == 2


def test_only_pixels_can_be_sent():
    model = scale()
    box, seen = gate(model=model), watched(model)
    loss = box.loss(pixels((1.5, -0.5), (-3.0, 2.0)), rows(0, 0))
    assert seen[0].flatten().tolist() == [1, 0, 0, 1]
    assert loss.tolist() == [2, -2]
    assert box.found[0].flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queries": 0}, "queries=0"),
        ({"access": "banana"}, "banana.*top-5"),
        ({"access": "top-0"}, "top-0"),
        ({"digits": 2}, "digits=2"),
        ({"digits": 0, "access": "probs"}, "digits=0"),
        ({"digits": 2, "access": "label"}, "digits=2"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(Refused, match=words):
        gate(**options)


def test_outputs_that_are_no_probabilities_have_none():
    model = Classifier(scale().net, Preprocess((1, 2), (0.0,), (1.0,)), tuple("abc"), scores="multi-label")
    with pytest.raises(Refused, match="multi-label"):
        BlackBox(model, clean(), Misclassify(RIGHT), eps=1, access="probs")


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_first_is_the_first_within_the_budget():
    """The picture (0.9, 0.1): the second query fools it from too far away, the fourth and fifth from near enough."""
    box = gate(eps=0.5)
    box.met(pixels((0.9, 0.2), (0.0, 1.0)), rows(0, 0))
    box.met(pixels((0.8, 0.2), (0.7, 0.3)), rows(1, 2))
    assert box.first.tolist() == [0, 0, 0]
    box.met(pixels((0.8, 0.2), (0.49, 0.51), (0.48, 0.5)), rows(0, 0, 0))
    assert box.first.tolist() == [4, 0, 0]
    box.met(pixels((0.49, 0.51)), rows(0))
    assert box.first.tolist() == [4, 0, 0]
    assert box.used.tolist() == [6, 1, 1]


@pytest.mark.parametrize(("norm", "nearest"), [("linf", (0.45, 0.55)), ("l2", (0.6, 0.62))])
def test_the_nearest_is_kept(norm, nearest):
    """From (0.9, 0.1), in Linf and L2: 0.45 and 0.636, 0.52 and 0.6003, and two that are far."""
    tried = [(0.0, 1.0), (0.45, 0.55), (0.6, 0.62), (0.1, 0.9), (0.9, 0.2)]
    for order in [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]:
        for at_once in True, False:
            box = gate(eps=0.7, norm=norm)
            z = pixels(*[tried[k] for k in order])
            for part in [z] if at_once else z.split(1):
                box.met(part, torch.zeros(len(part), dtype=torch.long))
            assert box.meets.tolist() == [True, False, False]
            torch.testing.assert_close(box.found[:1], pixels(nearest))
            best = box.best(clean())
            torch.testing.assert_close(best[:1], pixels(nearest))
            assert torch.equal(best[1:], clean()[1:])


def test_without_success_the_lowest_loss_within_the_budget_counts():
    """Not what was proposed and never asked about, nor what is better but too far."""
    box = gate(eps=0.25)
    box.loss(pixels((0.8, 0.2), (0.7, 0.3), (0.75, 0.2), (0.6, 0.4)), rows(0, 0, 0, 0))
    box.met(pixels((0.7, 0.3)), rows(1))
    proposed = clean() - 0.1
    best = box.best(proposed)
    torch.testing.assert_close(best[0], pixels((0.7, 0.3))[0])
    torch.testing.assert_close(best[1:], proposed[1:])  # no scores were asked for
    torch.testing.assert_close(box.best(None)[0], best[0])
    assert torch.equal(box.best(None)[1:], clean()[1:])


def test_what_was_found_too_far_is_cut_to_the_budget():
    box = gate(eps=0.25)
    box.met(pixels((0.1, 0.9)), rows(0))
    torch.testing.assert_close(box.best(None)[0], pixels((0.65, 0.35))[0])
    assert box.first.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 0.5), ("l2", 40.0)])
def test_what_is_cut_to_the_budget_is_within_it(norm, eps):
    """Whatever the rounding; and what is kept is what was answered about, to the bit."""
    x = torch.rand(50, 1, 1, 3000, generator=torch.Generator().manual_seed(0))
    model = linear([[0.0] * 3000, [0.0] * 3000], [0.0, 1.0])
    box = BlackBox(model, x, Misclassify(torch.zeros(50, dtype=torch.long)), eps=eps, norm=norm)
    z = project(torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) * 3 - 1, x, eps, norm)
    seen = watched(model)
    assert box.met(z, torch.arange(50)).all()
    assert (box.first == 1).all()
    assert torch.equal(box.best(None), torch.cat(seen))
    torch.testing.assert_close(box.best(None), z, rtol=0, atol=2e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [1e-6, 0.2])
def test_what_lies_beyond_the_budget_by_rounding_is_cut_before_it_is_asked_about(norm, eps):
    """What comes out is what was answered about, and within the budget; what is nearer or farther is sent as it is."""
    x = torch.full((4, 1, 1, 2), 0.5) * (torch.tensor([0.0, 1.0]) if eps < 1e-3 else 1.0)
    z = x.clone()
    z[..., 0] += torch.tensor([eps + 8e-7, eps + 8e-7, eps / 2, 2 * eps + 1e-5]).view(4, 1, 1)
    model = linear([[-1.0, 0.0], [0.0, 0.0]], [float(x[0, 0, 0, 0]) + eps * 0.9, 0.0])
    for ask in "met", "loss":
        box = BlackBox(model, x, Misclassify(torch.zeros(4, dtype=torch.long)), eps=eps, norm=norm, queries=1)
        seen = watched(model)
        getattr(box, ask)(z, torch.arange(4))
        sent = torch.cat(seen)
        assert torch.equal(sent[2:], z[2:])
        assert (sent[:2] < z[:2]).any(3).all()
        assert box.first.tolist() == [1, 1, 0, 0]
        best = box.best(None if ask == "met" else z)
        assert perturbation_norm(best - x, norm).max() <= eps + 3e-8
        assert torch.equal(best[:2], sent[:2])


def test_what_rounding_could_turn_does_not_meet_the_goal():
    """The margin must be more than two millionths of the largest output, which is 1.6 here; other goals have none."""
    below = torch.tensor([-3e-6, -1e-6, 0.0, 1e-6, 3e-6, 5e-6])
    z = torch.stack([torch.full((6,), 0.8), 0.8 + below], 1).view(6, 1, 1, 2)
    box = gate()
    loss, met = box.ask(z, rows(0, 0, 0, 0, 0, 0))
    assert met.tolist() == [False, False, False, False, True, True]
    assert (loss < 0).tolist() == [False, False, False, True, True, True]
    assert box.first.tolist() == [5, 0, 0]
    assert torch.equal(box.found[0], z[4])
    box = BlackBox(scale(), clean()[:1], Become(torch.tensor([1])), eps=1)
    assert box.met(z, rows(0, 0, 0, 0, 0, 0)).tolist() == met.tolist()


def test_no_budget_is_no_change():
    box = gate(eps=0.0)
    box.met(clean() + torch.tensor([-0.5, 0.5]), rows(0, 1, 2))
    assert torch.equal(box.best(None), clean())
    assert not box.first.any()


# --- in the runner ----------------------------------------------------------------------------------------------------

ASKERS = '''
import torch
from clearsight.core import rng
from clearsight.core.catalogue import method

@method(paper="control", claims="linf stochastic black-box")
def asker(box, x, *, eps: float, queries: int = 9):
    """Asks for ever, and never looks at how much is left."""
    rows = torch.arange(len(x))
    while True:
        box.loss(x + eps * (2 * rng.uniform(x) - 1), rows)

@method(paper="control", claims="linf stochastic black-box")
def some(box, x, *, eps: float, queries: int = 9):
    """Asks as long as any picture is not done."""
    rows = torch.arange(len(x))
    z = x.clone()
    while len(rows):
        tried = x[rows] + eps * (2 * rng.uniform(x[rows], rows) - 1)
        met = box.met(tried, rows)
        z[rows[met]] = tried[met]
        rows = rows[~met]
    return z
'''


STEPS = '''
import torch
from clearsight.core.catalogue import method

@method(paper="control", claims="linf black-box")
def steps(box, x, *, eps: float, queries: int = 9):
    """One picture at a time, always a little brighter."""
    for k in range(queries):
        for i in range(len(x)):
            box.met(x[i : i + 1] + eps * (k + 1) / queries * 1.9, torch.tensor([i]))
    return x + eps
'''


@pytest.fixture
def askers(tmp_path, monkeypatch):
    (tmp_path / "askers.py").write_text(ASKERS)
    monkeypatch.chdir(tmp_path)
    return "./askers.py"


@pytest.fixture
def pictures(small, x):
    with small.undisturbed(), torch.no_grad():
        return x, small(x).argmax(1)


@pytest.mark.parametrize("name", ["asker", "some"])
def test_an_attack_that_never_stops_asking_is_stopped(name, askers, small, pictures):
    x, y = pictures
    seen: list[int] = []
    small.net.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    attack(small, x, y, f"{askers}:{name}(queries=23)", eps=0.5)  # the first time, what a pass keeps is measured
    seen.clear()
    a = attack(small, x, y, f"{askers}:{name}(queries=23)", eps=0.5)
    assert sum(seen) == int(a.spent.sum()) + 2 * len(x)
    assert torch.equal(a.spent == 23, (a.first == 0) | (torch.tensor(name == "asker")))
    if name == "some":
        assert torch.equal(a.spent[a.first > 0], a.first[a.first > 0])
    assert torch.equal(a.fooled, a.first > 0)
    assert (a.x - x).abs().max() <= 0.5 + 1e-6


@pytest.mark.parametrize("name", ["asker", "some"])
@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_who_else_is_asked_about_cannot_show(name, eps, askers, small, pictures):
    x, y = pictures
    call = f"{askers}:{name}(queries=11)"
    whole = attack(small, x, y, call, eps=eps)
    for batch in 1, 3:
        again = attack(small, x, y, call, eps=eps, batch=batch)
        torch.testing.assert_close(again.x, whole.x)
        assert torch.equal(again.first, whole.first)
        assert torch.equal(again.spent, whole.spent)


class Moody(nn.Module):
    """Another answer where a single picture is asked about."""

    def __init__(self, alone: float, together: float) -> None:
        super().__init__()
        self.alone, self.together, self.there = alone, together, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        second = self.alone if len(x) == 1 else self.together
        other = torch.where((x > 0.6).flatten(1).any(1), second, -1.0)
        return torch.stack([torch.zeros(len(x)), other], 1) + self.there


@pytest.mark.parametrize(("alone", "together", "first"), [(1.0, -1.0, 0), (-1.0, 1.0, 9), (1.0, 1.0, 3)])
def test_the_recount_has_the_last_word(alone, together, first, tmp_path, monkeypatch):
    """What it does not confirm was not the first; where it alone says that the goal is met, all queries were paid."""
    (tmp_path / "steps.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clearsight.runner.run.alone", lambda _model, _x: False)  # else such a network is refused
    model = Classifier(Moody(alone, together), Preprocess((1, 2), (0.0,), (1.0,)), ("a", "b"))
    x = torch.stack([torch.full((1, 1, 2), 0.5), torch.full((1, 1, 2), 0.4)])
    a = attack(model, x, torch.tensor([0, 0]), "./steps.py:steps", eps=0.2)
    assert a.fooled.tolist() == [together > 0, False]
    assert a.first.tolist() == [first, 0]
    assert a.spent.tolist() == [9, 9]


def test_model_and_chance_are_left_alone_when_the_queries_end(askers, small, pictures):
    x, y = pictures
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    statistics = [b.clone() for b in small.net.buffers()]
    small.net[1].eval()
    modes = [m.training for m in small.net.modules()]
    a = attack(small, x, y, f"{askers}:asker", eps=0.1)
    assert (a.spent == 9).all()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert [m.training for m in small.net.modules()] == modes
    assert sum(modes) == len(modes) - 1
    assert all(p.requires_grad for p in small.net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(statistics, small.net.buffers(), strict=True))


def test_a_gate_keeps_no_graph(small, x):
    box = BlackBox(small, x, Misclassify(torch.tensor([0, 1, 2, 3])), eps=1)
    with torch.enable_grad():
        z = x.clone().requires_grad_()
        loss, _ = box.ask(z, torch.arange(4))
    assert not loss.requires_grad
    assert not box.best(None).requires_grad
