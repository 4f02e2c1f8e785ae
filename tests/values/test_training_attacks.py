"""Single-step attacks with a random start, and what training gives a network as attack."""

import pytest
import torch
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.evaluation_mode import evaluating
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import AwayFrom, Misclassify, label_goal
from clearsight.errors import Refused
from clearsight.runner.run import attack
from clearsight.testing import linear, training_step
from clearsight.training.perturb import training_attack

X = torch.tensor([[[[0.5, 0.4, 0.6]]]]).repeat(5, 1, 1, 1)
MODEL = linear([[3.0, -2.0, 1.0], [0.0, 0.0, 0.0]])
CORNER = torch.tensor([-0.1, 0.1, -0.1])


def test_a_large_step_from_a_random_start_ends_in_the_worst_corner() -> None:
    found = attack(MODEL, X, torch.zeros(5, dtype=torch.long), "fgsm(random_start=true, step=0.2)", eps=0.1)
    torch.testing.assert_close(found.x - X, CORNER.expand_as(X))


def test_a_small_step_from_a_random_start_is_that_long_wherever_it_began() -> None:
    goal = Misclassify(torch.zeros(5, dtype=torch.long))
    other = X + torch.arange(5).view(5, 1, 1, 1) * 0.01  # each picture draws its own start
    with rng.seeded(3, other, "fgsm"):
        from clearsight.core.norms import within

        start = within(other, 0.1, "linf")
    found = attack(MODEL, other, goal, "fgsm(random_start=true, step=0.01)", eps=0.1, seed=3)
    wanted = (start + 0.1 * CORNER).clamp(other - 0.1, other + 0.1)
    torch.testing.assert_close(found.x, wanted)
    assert len({tuple(row) for row in (found.x - other).flatten(1).tolist()}) == 5


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


@pytest.mark.parametrize("call", ["square", "deepfool", "patch", "universal", "spatial", "transfer"])
def test_attacks_that_training_cannot_use_are_refused_by_name(call: str) -> None:
    with pytest.raises(Refused, match=f"training against {call}.*pgd"):
        training_attack(call)


def test_the_attack_of_training_goes_on_when_a_picture_is_fooled() -> None:
    call, eps, norm = training_attack("pgd(eps=0.1, steps=3, norm=l2)")
    assert (call.options["early_stop"], eps, norm) == (False, 0.1, "l2")
    assert training_attack("pgd(early_stop=true)")[0].options["early_stop"] is True
