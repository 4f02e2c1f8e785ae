"""Single-step attacks with a random start, and what training gives a network as attack."""

import random
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.attacks.fgsm import fgsm
from clearsight.core import rng
from clearsight.core.catalogue import Call, method, parse
from clearsight.core.classifier import Classifier
from clearsight.core.evaluation_mode import evaluating
from clearsight.core.passes import counted
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import AwayFrom, Become, Goal, Misclassify, label_goal, tangent
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.runner.run import attack
from clearsight.testing import linear, training_step
from clearsight.training.losses import defended_losses
from clearsight.training.perturb import training_attack

X = torch.tensor([[[[0.5, 0.4, 0.6]]]]).repeat(5, 1, 1, 1)
MODEL = linear([[3.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
CORNER = torch.tensor([-0.1, 0.1, -0.1])


def test_a_large_step_from_a_random_start_ends_in_the_worst_corner() -> None:
    found = attack(MODEL, X, torch.zeros(5, dtype=torch.long), "fgsm(random_start=true, step=0.2)", eps=0.1)
    torch.testing.assert_close(found.x - X, CORNER.expand_as(X))


@pytest.mark.parametrize(("words", "size"), [(", step=0.01", 0.01), ("", 0.125)])
def test_a_step_of_fgsm_from_a_random_start_is_that_long_wherever_it_began(words: str, size: float) -> None:
    goal = Misclassify(torch.zeros(5, dtype=torch.long))
    other = X + torch.arange(5).view(5, 1, 1, 1) * 0.01  # each picture draws its own start
    with rng.seeded(3, other, "fgsm"):
        from clearsight.core.norms import within

        start = within(other, 0.1, "linf")
    found = attack(MODEL, other, goal, f"fgsm(random_start=true{words})", eps=0.1, seed=3)
    wanted = (start + 10 * size * CORNER).clamp(other - 0.1, other + 0.1)
    torch.testing.assert_close(found.x, wanted)
    assert len({tuple(row) for row in (found.x - other).flatten(1).tolist()}) == (5 if words else 4)


def test_pgd_may_begin_at_random_too() -> None:
    still = attack(MODEL, X, torch.zeros(5, dtype=torch.long), "pgd(steps=0)", eps=0.1)
    moved = attack(MODEL, X, torch.zeros(5, dtype=torch.long), "pgd(steps=0, random_start=true)", eps=0.1)
    assert torch.equal(still.x, X)
    assert 0.02 < float((moved.x - X).abs().mean()) < 0.1


def test_labels_in_shares_are_left_behind_by_their_cross_entropy() -> None:
    outputs, shares = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.7, 0.3, 0.0]])
    goal = label_goal(shares)
    assert isinstance(goal, AwayFrom)
    torch.testing.assert_close(goal.loss(outputs), -nn.functional.cross_entropy(outputs, shares, reduction="none"))
    assert goal.met(outputs).tolist() == [False]
    assert goal.met(outputs.flip(1)).tolist() == [True]
    assert isinstance(label_goal(torch.eye(3)), Misclassify)


class Switch(nn.Module):
    """A linear network of another slope in training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x: Tensor) -> Tensor:
        z = (x.flatten(1) * self.weight).sum(1) * (-1 if self.training else 1)
        return torch.stack([z, -z], 1)


def test_training_attacks_the_network_in_evaluation_mode_and_leaves_it_as_it_was() -> None:
    net = Switch().train()
    net.norm.eval()
    step = training_step(Classifier(net, Preprocess((1, 2), (0.0,), (1.0,)), ("a", "b")), "fgsm", eps=0.1)
    x = torch.full((1, 1, 1, 2), 0.5)
    found = step.attack(x, label_goal(torch.tensor([[1.0, 0.0]])))
    torch.testing.assert_close((found - x).flatten(), torch.tensor([-0.1, 0.1]))  # the slope of evaluation
    assert not found.requires_grad
    assert net.training
    assert not net.norm.training
    assert net.weight.requires_grad
    assert net.weight.grad is None
    with pytest.raises(ZeroDivisionError), evaluating(net):
        raise ZeroDivisionError
    assert net.training


@pytest.mark.parametrize("of_many", [True, False])
def test_the_states_of_python_and_numpy_are_kept_once_for_many_steps(
    monkeypatch: pytest.MonkeyPatch, of_many: bool
) -> None:
    kept, get_state, draws = [], np.random.get_state, []

    @method(paper="none")
    def drawing(step: TrainingStep, x: Tensor, y: Tensor) -> Tensor:
        draws.append((random.random(), np.random.rand()))
        step.attack(x, label_goal(y))
        draws.append((random.random(), np.random.rand()))
        return step.cross_entropy(step.model(x), y)

    monkeypatch.setattr(np.random, "get_state", lambda **more: kept.append(0) or get_state(**more))
    step = training_step(MODEL, "fgsm", eps=0.1)
    random.seed(1)
    was = random.getstate()
    with rng.held() if of_many else nullcontext():
        for _ in range(3):
            rng.seed_all(5) if of_many else None
            defended_losses(Call(drawing), step, X, torch.eye(2)[:1].expand(5, 2))
    assert len(kept) == (1 if of_many else 3)
    assert random.getstate() == was
    assert draws[:2] == draws[2:4] == draws[4:]
    assert draws[0][0] != draws[1][0]
    assert draws[0][1] != draws[1][1]


def test_fgsm_asks_for_no_loss_whose_slope_is_known() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Misclassify, "loss")
        assert fgsm(MODEL, X, Misclassify(torch.zeros(5, dtype=torch.long)), eps=0.1).shape == X.shape


@pytest.mark.parametrize("call", ["square", "deepfool", "patch", "universal", "spatial", "transfer"])
def test_attacks_that_training_cannot_use_are_refused_by_name(call: str) -> None:
    with pytest.raises(Refused, match=f"training against {call}.*pgd"):
        training_attack(call)


def test_the_attack_of_training_goes_on_when_a_picture_is_fooled() -> None:
    call, eps, norm = training_attack("pgd(eps=0.1, steps=3, norm=l2)")
    assert (call.options["early_stop"], eps, norm) == (False, 0.1, "l2")
    assert training_attack("pgd(early_stop=true)")[0].options["early_stop"] is True


def test_it_is_the_last_iterate_unless_the_words_say_so_or_there_are_several() -> None:
    spelled = ("pgd", "pgd(keep=best)", "pgd(restarts=2)")
    assert [training_attack(words)[0].options.get("keep") for words in spelled] == ["last", "best", None]


class Valley(nn.Module):
    """Two logits, the square of the distance of one pixel from 0.6 and 0: the answer turns between 0.5 and 0.7."""

    def forward(self, x: Tensor) -> Tensor:
        z = 100 * (x.flatten(1) - 0.6).square() - 1
        return torch.cat([z, torch.zeros_like(z)], 1)


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        ("pgd(steps=3, step=0.15, keep=last, early_stop=false)", 0.65),  # 0.5 at its start, then 0.65, 0.5 and 0.65
        ("pgd(steps=2, step=0.15, keep=last, early_stop=false)", 0.5),
        ("pgd(steps=2, step=0.15, early_stop=false)", 0.65),
        ("pgd(steps=3, step=0.15, keep=last)", 0.65),  # where it meets its goal, and is left alone
        ("pgd(steps=2, step=0.15, keep=last)", 0.65),
        ("pgd(steps=1, step=0.05, keep=last)", 0.55),
        ("pgd(steps=0, keep=last)", 0.5),
    ],
)
def test_the_last_iterate_of_pgd_is_the_one_after_all_steps_or_where_it_was_left_alone(words: str, ends: float) -> None:
    model = Classifier(Valley(), Preprocess((1, 1), (0.0,), (1.0,)), ("far", "near"))
    call, x = parse(words, "attacks"), torch.full((1, 1, 1, 1), 0.5)
    found = call.method(model, x, Misclassify(torch.tensor([0])), eps=0.3, **call.options)
    torch.testing.assert_close(found, torch.full_like(x, ends))


def test_the_last_iterate_takes_a_pass_less_and_goes_with_one_run() -> None:
    y = torch.zeros(5, dtype=torch.long)
    for keep, forwards in (("best", 4), ("last", 3)):
        with counted(MODEL.net) as passes:
            parse("pgd", "attacks").method(MODEL, X, Misclassify(y), eps=0.1, steps=3, early_stop=False, keep=keep)
        assert (passes.forwards / 5, passes.backwards / 5) == (forwards, 3)
    with pytest.raises(Refused, match=r"keep=last, restarts=2.*several runs have no last iterate"):
        attack(MODEL, X, y, "pgd(keep=last, restarts=2)", eps=0.1)


@pytest.mark.parametrize(
    "goal",
    [
        Misclassify(torch.tensor([0, 2])),
        Misclassify(torch.tensor([[True, True, False], [False, False, True]])),
        Become(torch.tensor([1, 0])),
        AwayFrom(torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.2, 0.4]])),
    ],
)
def test_a_tangent_has_the_slope_of_its_goal(goal: Goal) -> None:
    outputs = torch.tensor([[2.0, 1.0, 0.0], [-1.0, 0.5, 30.0]]).requires_grad_()
    found, wanted = (torch.autograd.grad(f(outputs).sum(), outputs)[0] for f in (partial(tangent, goal), goal.loss))
    torch.testing.assert_close(found, wanted)
    assert wanted.abs().amax(1).gt(0.05).all()
