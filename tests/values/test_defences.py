"""The losses of defences: closed forms on linear networks, and plain replicas written from the papers."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.core.catalogue import catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.passes import counted
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Goal, label_goal
from clearsight.core.training_step import TrainingStep
from clearsight.data.datasets import Pictures
from clearsight.defences.common.divergence import Diverge
from clearsight.testing import linear, training_step
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.loop import train
from clearsight.training.losses import defended_losses
from clearsight.training.objective import objective, step_loss
from clearsight.training.recipe import Recipe
from clearsight.training.run import Run
from clearsight.training.training_data import TrainingData
from quickruns import QUICK, photos, weights

EPS = 0.1


def losses(words: str, step: TrainingStep, x: Tensor, y: Tensor) -> Tensor:
    return defended_losses(parse(words, "defences"), step, x, y)


def one_hot(classes: list[int], n: int) -> Tensor:
    return nn.functional.one_hot(torch.tensor(classes), n).float()


def entropy(p: Tensor, y: Tensor) -> Tensor:
    """Cross entropy (B,) of probabilities p (B, K)."""
    return -(y * p.log()).sum(1)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(1)


def drawn(x: Tensor, name: str, seed: int = 0) -> Tensor:
    """What a defence of that name draws first."""
    with rng.seeded(seed, x, name):
        return rng.normal(x)


def linear_two() -> tuple[Classifier, Tensor, Tensor]:
    """Logits w x + b and 0, with pictures far from 0 and 1, of both classes."""
    x = 0.3 + 0.4 * torch.rand(6, 1, 1, 3, generator=torch.Generator().manual_seed(3))
    return linear([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], [-0.4, 0.0]), x, one_hot([0, 1, 0, 1, 1, 0], 2)


def at_corner(x: Tensor, toward: Tensor, model: Classifier, start: Tensor | float = 0.0) -> Tensor:
    """The probabilities (B, 2) where a linear score has gone as far as it goes, up (toward 1) or down (toward -1).

    start: where the attack began beside the picture; from there too it goes no farther than its budget.
    """
    w, b = model.net[1].weight.detach()[0], model.net[1].bias.detach()[0]
    move = (toward[:, None] * EPS * w.sign() + start).clamp(-EPS, EPS)
    score = (x.flatten(1) + move) @ w + b
    return torch.stack([score.sigmoid(), (-score).sigmoid()], 1)


def slope_of(goal: Goal, outputs: Tensor) -> Tensor:
    """The gradient of a goal's loss at outputs (B, K), by autograd."""
    z = outputs.clone().requires_grad_()
    return torch.autograd.grad(goal.loss(z).sum(), z)[0]


# Closed forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [0.0, 0.25, 1.0])
def test_adversarial_training_on_a_linear_network(clean: float) -> None:
    model, x, y = linear_two()
    found = losses(f"adversarial-training(clean={clean})", training_step(model, "fgsm", eps=EPS), x, y)
    against = 1 - 2 * y[:, 0]  # the score falls for the first class, and rises for the second
    wanted = (1 - clean) * entropy(at_corner(x, against, model), y) + clean * entropy(model(x).softmax(1), y)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("attack", ["fgsm", "pgd(steps=3)"])
def test_trades_on_a_linear_network(attack: str, beta: float) -> None:
    """The noise says to which side of the answer the attack goes; the labels have no say in it."""
    model, x, y = linear_two()
    found = losses(f"trades(beta={beta})", training_step(model, attack, eps=EPS), x, y)
    start = 0.001 * drawn(x, "trades").flatten(1)
    side = (start @ model.net[1].weight.detach()[0]).sign()
    p, q = model(x).softmax(1), at_corner(x, side, model, start)
    torch.testing.assert_close(found, entropy(p, y) + beta * kl(p, q), rtol=1e-4, atol=1e-6)


def test_mart_on_a_linear_network() -> None:
    model, x, y = linear_two()
    found = losses("mart(beta=3)", training_step(model, "fgsm", eps=EPS), x, y)
    p, q = model(x).softmax(1), at_corner(x, 1 - 2 * y[:, 0], model)
    right, wrong = (q * y).sum(1), (q * (1 - y)).sum(1)
    wanted = -right.log() - (1.0001 - wrong).log() + 3 * kl(p, q) * (1 - (p * y).sum(1))
    torch.testing.assert_close(found, wanted)


def test_gaussian_augmentation_is_that_of_the_picture_and_leaves_the_range() -> None:
    model, x, y = linear_two()
    found = losses("gaussian-augmentation(sigma=2)", training_step(model, seed=7), x, y)
    torch.testing.assert_close(found, entropy(model(x + 2 * drawn(x, "gaussian-augmentation", 7)).softmax(1), y))


def test_awp_on_a_linear_network() -> None:
    """The mean gradient of the loss of logits W x + b is (p - y) x' for W; b does not move."""
    model, x, y = linear_two()
    moved = training_step(model, "fgsm", eps=EPS).attack(x, label_goal(y)).flatten(1)
    found = losses("awp(gamma=0.3)", training_step(model, "fgsm", eps=EPS), x, y)
    w, b = model.net[1].weight.detach(), model.net[1].bias.detach()
    g = ((moved @ w.T + b).softmax(1) - y).T @ moved
    worse = w + 0.3 * w.norm() * g / g.norm()
    torch.testing.assert_close(found, entropy((moved @ worse.T + b).softmax(1), y))
    assert found.mean() > losses("adversarial-training", training_step(model, "fgsm", eps=EPS), x, y).mean()


# Replicas -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def net(small: Classifier) -> Classifier:
    """A convolutional network whose running averages are used."""
    small.net.eval()
    return small


Y = one_hot([0, 3, 1, 4], 5)


def gradients(model: Classifier, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.net.parameters())))


def shortened(z: Tensor, x: Tensor) -> Tensor:
    """Pictures z (4, ...), each at most 0.5 away from that of x."""
    away = [min(1.0, 0.5 / float(move.norm())) if bool(move.any()) else 1.0 for move in z - x]
    return (x + torch.tensor(away).view(-1, 1, 1, 1) * (z - x)).clamp(0, 1)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_trades_is_its_algorithm(net: Classifier, x: Tensor, keep: str) -> None:
    """Zhang et al. 2019, algorithm 1, whose last iterate is taken unless the attack keeps the worst.

    Which is worst: another answer first, then the divergence.
    """
    words = "pgd(steps=4, step=0.3, norm=l2{})".format(", keep=best" if keep == "best" else "")
    step = training_step(net, words, eps=0.5)
    found = losses("trades(beta=2)", step, x, Y)
    with torch.no_grad():
        p = net(x).softmax(1)
    z = (x + 0.001 * drawn(x, "trades")).clamp(0, 1)
    near, tried = z.clone(), []
    for k in range(5):
        z.requires_grad_()
        q = net(z).softmax(1)
        far = kl(p, q)
        tried.append((z.detach(), far.detach() + 1e3 * (q.argmax(1) != p.argmax(1))))
        if k < 4:
            (g,) = torch.autograd.grad(far.sum(), z)
            z = shortened(z.detach() + 0.3 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1), near)
    best = torch.stack([score for _, score in tried]).argmax(0) if keep == "best" else torch.full((4,), 4)
    worst = torch.stack([tried[k][0][i] for i, k in enumerate(best.tolist())])
    worst = shortened(worst, x)
    clean = net(x).softmax(1)
    wanted = entropy(clean, Y) + 2 * kl(clean, net(worst).softmax(1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    for a, b in zip(gradients(net, found.mean()), gradients(net, wanted.mean()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_mart_is_its_formula(net: Classifier, x: Tensor) -> None:
    """Wang et al. 2020, section 3, picture by picture, with the gradient through both answers."""
    step = training_step(net, "pgd(steps=3)", eps=EPS)
    found = losses("mart(beta=4)", step, x, Y)
    moved, wanted = step.attack(x, label_goal(Y)), []
    for i, k in enumerate(Y.argmax(1).tolist()):
        p, q = net(x[[i]])[0].softmax(0), net(moved[[i]])[0].softmax(0)
        wrong = max((q[j] for j in range(5) if j != k), key=lambda v: float(v.detach()))
        apart = sum(p[j] * (p[j].log() - q[j].log()) for j in range(5))
        wanted.append(-q[k].log() - (1.0001 - wrong).log() + 4 * apart * (1 - p[k]))
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-6)
    for a, b in zip(gradients(net, found.mean()), gradients(net, torch.stack(wanted).mean()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_free_is_its_algorithm(net: Classifier, x: Tensor, norm: str) -> None:
    """Shafahi et al. 2019, algorithm 1: batches of 4, 3 and 4 pictures, three replays of each, steps of SGD."""
    batches = [(x, Y), (x[:3].flip(3), Y[:3]), (x.flip(2), Y)]
    twin = copy.deepcopy(net.net)
    opt = torch.optim.SGD(net.net.parameters(), 0.1)
    memory: dict[str, Tensor] = {}
    for a, b in batches:
        for replay in range(3):
            made = training_step(net, f"pgd(norm={norm})", eps=EPS)
            step = TrainingStep(made.model, made.cross_entropy, made.attack, EPS, norm, replay, memory)
            opt.zero_grad()
            losses("free(replays=3)", step, a, b).mean().backward()
            opt.step()
    plain = torch.optim.SGD(twin.parameters(), 0.1)
    delta = torch.zeros_like(x)
    for a, b in batches:
        n = len(a)
        for _ in range(3):
            z = (a + delta[:n]).clamp(0, 1).requires_grad_()
            plain.zero_grad()
            nn.functional.cross_entropy(twin((z - 0.5) / 0.25), b).backward()
            plain.step()
            for i in range(n):
                g = z.grad[i]
                moved = delta[i] + EPS * (g.sign() if norm == "linf" else g / g.norm())
                delta[i] = moved.clamp(-EPS, EPS) if norm == "linf" else moved * min(1.0, EPS / float(moved.norm()))
    torch.testing.assert_close(memory["delta"], delta, rtol=1e-4, atol=1e-6)
    for p, q in zip(net.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_free_leaves_a_perturbation_in_l2_that_is_shorter_than_the_budget_as_long_as_it_is() -> None:
    """Two steps of 0.1 that nearly undo each other: first away from class 0, then away from class 1."""
    model, x = linear([[4.0, 0.0], [-4.0, 1.0], [0.0, 0.0]]), torch.full((1, 1, 1, 2), 0.5)
    step, wanted = training_step(model, "pgd(norm=l2)", eps=EPS), torch.zeros(2)
    for k in (0, 1):
        p = model(x + wanted).softmax(1)[0].detach()
        p[k] -= 1
        g = p @ model.net[1].weight.detach()
        losses("free", step, x, one_hot([k], 3)).mean().backward()
        wanted = wanted + EPS * g / g.norm()
    assert 0.001 < float(wanted.norm()) < 0.05
    torch.testing.assert_close(step.memory["delta"].flatten(), wanted)


def test_free_goes_on_where_a_larger_batch_comes_later(net: Classifier, x: Tensor) -> None:
    step = training_step(net, eps=EPS)
    losses("free", step, x[:2], Y[:2]).mean().backward()
    first = step.memory["delta"].clone()
    assert (first != 0).any()
    found = losses("free", step, x, Y)
    moved = (x + torch.cat([first, torch.zeros_like(x[2:])])).clamp(0, 1)
    torch.testing.assert_close(found, entropy(net(moved).softmax(1), Y), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_awp_is_its_algorithm(small: Classifier, x: Tensor, training: bool) -> None:
    """Wu et al. 2020, algorithm 1, on a copy whose weights are changed in place, each layer by itself."""
    small.net.train(training)
    step = training_step(small, "pgd(steps=3)", eps=EPS)
    moved = step.attack(x, label_goal(Y))
    twin, before = copy.deepcopy(small.net), [b.clone() for b in small.net.buffers()]
    found = losses("awp(gamma=0.05)", step, x, Y)
    found.mean().backward()
    nn.functional.cross_entropy(twin((moved - 0.5) / 0.25), Y).backward()
    with torch.no_grad():
        for p in twin.parameters():
            if p.dim() > 1:
                p += 0.05 * p.norm() * p.grad / p.grad.norm()
            p.grad = None
    for b, old in zip(twin.buffers(), before, strict=True):
        b.copy_(old)
    wanted = nn.functional.cross_entropy(twin((moved - 0.5) / 0.25), Y, reduction="none")
    wanted.mean().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for p, q in zip(small.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5)
    for p, q in zip(small.net.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize(
    "inner", ["adversarial-training(clean=0.5)", "trades(beta=3)", "mart", "gaussian-augmentation"]
)
def test_awp_without_a_move_is_its_inner_defence_and_with_one_it_is_worse(net: Classifier, x: Tensor, inner: str):
    step = training_step(net, "pgd(steps=3)", eps=EPS)
    none = losses(f"awp(inner={inner}, gamma=0)", step, x, Y)
    some = losses(f"awp(inner={inner}, gamma=0.02)", step, x, Y)
    assert some.mean() > none.mean()
    if inner in ("mart", "adversarial-training(clean=0.5)"):  # the others draw under the name of awp
        torch.testing.assert_close(none, losses(inner, step, x, Y), rtol=1e-4, atol=1e-6)


def test_awp_of_a_network_whose_body_is_frozen_moves_the_head_alone(net: Classifier, x: Tensor) -> None:
    net.net.requires_grad_(False)
    net.net[-1].requires_grad_(True)
    step = training_step(net, "fgsm", eps=EPS)
    before = losses("awp(gamma=0)", step, x, Y)
    assert losses("awp(gamma=0.1)", step, x, Y).mean() > before.mean()
    net.net[-1].weight.requires_grad_(False)
    torch.testing.assert_close(losses("awp(gamma=0.1)", step, x, Y), before)


# What they cost, and how they train -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "passes"),
    [  # an attack of 3 steps takes 3 passes forwards and 3 back
        ("adversarial-training", (4, 4)),
        ("trades", (6, 5)),
        ("mart", (5, 5)),
        ("free", (1, 1)),
        ("gaussian-augmentation", (1, 1)),
    ],
)
def test_passes_of_a_step(net: Classifier, x: Tensor, words: str, passes: tuple[int, int]) -> None:
    step = training_step(net, "pgd(steps=3)", eps=EPS)
    with counted(net.net) as found:
        losses(words, step, x, Y).mean().backward()
    assert (found.forwards / 4, found.backwards / 4) == passes


def test_awp_adds_a_pass_and_no_attack(net: Classifier, x: Tensor) -> None:
    with counted(net.net) as found:
        losses("awp", training_step(net, "pgd(steps=3)", eps=EPS), x, Y).mean().backward()
    assert found.forwards / 4 == 5


SHORT = {"epochs": 2, "perturb": "pgd(eps=4/255, steps=2)"}


def recipe(**more: object) -> Recipe:
    return replace(QUICK, **{**SHORT, **more})


@pytest.mark.parametrize("words", ["free(replays=2)", "trades", "awp(inner=mart)"])
def test_stopped_between_epochs_it_ends_bit_for_bit_the_same(tmp_path: Path, words: str) -> None:
    data, asked = photos(tmp_path), recipe(defence=words)
    list(train(data, asked, tmp_path / "whole"))
    run = train(data, asked, tmp_path / "parts")
    next(run)
    run.close()
    list(train(data, asked, tmp_path / "parts", resume=True))
    found, wanted = (weights(tmp_path / name) for name in ("parts", "whole"))
    assert found == wanted


def test_gaussian_augmentation_trains_without_an_attack(tmp_path: Path) -> None:
    """And it is used: the run is not the one without."""
    data = photos(tmp_path)
    for name, words in (("plain", ""), ("noise", "gaussian-augmentation(sigma=0.5)")):
        list(train(data, recipe(perturb="", defence=words), tmp_path / name))
    found, wanted = (weights(tmp_path / name) for name in ("plain", "noise"))
    assert found != wanted


class Auxiliary(nn.Module):
    """A linear network that gives the scores of a second head too while it trains, as GoogLeNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.aux1, self.head = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = x.flatten(1)
        return (self.head(x), self.aux1(x)) if self.training else self.head(x)


@pytest.mark.parametrize("words", catalogue("defences"))
def test_a_network_with_auxiliary_outputs_is_trained_by_its_main_one(words: str) -> None:
    """In training it gives two outputs; under attack, and for trades' clean answer, it gives one."""
    net, x, y = Auxiliary(), torch.rand(3, 1, 2, 2), one_hot([0, 1, 1], 2)
    asked = Recipe(defence=words, perturb="fgsm(eps=0.1)")
    start = TrainableNetwork(net, "", {}, Preprocess((2, 2), (0.0,), (1.0,)), frozenset(), "")
    data = TrainingData(Pictures("", ()), (), (), ("a", "b"), y, (), ())
    run = Run(asked, data, start, None, net, None, None, net, None)
    loss = step_loss(run, objective(asked), x, y, None, torch.ones(2), 5, 0)
    model = Classifier(net, start.preprocess, ("a", "b"), output=0)
    step = training_step(replace(model, output=None), "fgsm", eps=0.1, seed=5)
    torch.testing.assert_close(loss, losses(words, replace(step, model=model), x, y).mean())
    loss.backward()
    assert net.aux1.weight.grad is None
    assert net.head.weight.grad is not None


def test_the_goal_of_another_answer_asks_each_picture_about_its_own() -> None:
    goal = Diverge(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]))
    after = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    some = goal[torch.tensor([0, 2])]
    assert some.met(after).tolist() == [True, False]
    torch.testing.assert_close(some.slope(after), slope_of(some, after))
    p, q = goal.before[[0, 2]].softmax(1), after.softmax(1)
    torch.testing.assert_close(some.loss(after), -kl(p, q))


def test_a_step_runs_the_same_pictures_once_and_another_step_runs_them_again(net: Classifier, x: Tensor) -> None:
    step = training_step(net, "fgsm", eps=EPS)
    with counted(net.net) as found:
        first = step.forward(x)
        assert step.forward(x) is first
        assert found.forwards == 4
        assert replace(step).forward(x) is not first
        assert step.forward(x.clone()) is not first
    torch.testing.assert_close(first, net(x))
