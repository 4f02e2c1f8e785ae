"""The numbers of the gradient attacks: exact distances on linear models, replicas from the papers, what they cost."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import scipy.optimize
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.attacks.common.small_steps import even
from clearsight.core import rng
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.classifier import Classifier
from clearsight.core.norms import overstep, perturbation_norm, project, steepest, step_down, within
from clearsight.core.preprocess import Preprocess, normalised
from clearsight.core.targets import Become, Misclassify
from clearsight.errors import Refused
from clearsight.runner.run import attack
from clearsight.testing import linear, rectified
from thinning import with_slow
from workshop import smooth

INF = float("inf")
PIXELS = 20
MINIMAL = ["deepfool(norm=l2)", "deepfool(norm=linf)", "carlini-wagner"]
SMALL_STEPS = ["bim", "bim(norm=l2)", "mi-fgsm", "mi-fgsm(norm=l2)"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answers(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def slopes(model: Classifier) -> Tensor:
    """The weights (classes, 1, 1, W) of a linear model."""
    weight: Tensor = model.net[1].weight.detach()
    return weight[:, None, None]


def distances(model: Classifier, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """To the boundary between y and each class, (B, K), of a linear model without a box: |gap| / |w|_2 or |w|_1."""
    out, w = answers(model, x), slopes(model).flatten(1)
    gap = (out - out.gather(1, y[:, None])).abs()
    dual = (w[None] - w[y][:, None]).norm(p=2 if norm == "l2" else 1, dim=2)
    return torch.where(torch.arange(len(w)) == y[:, None], torch.inf, gap / dual)


@pytest.fixture
def many() -> tuple[Classifier, Tensor, Tensor]:
    """A linear model of five classes, pictures so far inside that the box binds nowhere, and their classes.

    The weights are not of one length, so the nearest class is often not the one with the second best output.
    """
    weight = torch.randn(5, PIXELS, generator=seeded(0)) * torch.tensor([0.5, 1.0, 1.0, 1.5, 2.0])[:, None]
    x = 0.4 + 0.2 * torch.rand(12, 1, 1, PIXELS, generator=seeded(1))
    model = linear(weight.tolist(), (-0.5 * weight.sum(1)).tolist())
    y = answers(model, x).argmax(1)
    assert distances(model, x, y, "l2").amin(1).max() < 0.3
    return model, x, y


@pytest.fixture
def two() -> tuple[Classifier, Tensor, Tensor]:
    """A linear model of two classes, whose outputs are all below 0, and pictures where the box binds nowhere."""
    weight = torch.randn(2, PIXELS, generator=seeded(4))
    x = 0.4 + 0.2 * torch.rand(8, 1, 1, PIXELS, generator=seeded(5))
    model = linear(weight.tolist(), (-10 - 0.5 * weight.sum(1)).tolist())
    out = answers(model, x)
    assert (out < 0).all()
    assert len(set(out.argmax(1).tolist())) == 2
    assert distances(model, x, out.argmax(1), "l2").amin(1).max() < 0.3
    return model, x, out.argmax(1)


@pytest.fixture
def boxed() -> tuple[Classifier, Tensor, Tensor]:
    """A linear model of two classes and pictures of which most pixels are 0 or 1, so that many cannot go further."""
    weight = torch.randn(2, PIXELS, generator=seeded(6))
    x = (torch.rand(8, 1, 1, PIXELS, generator=seeded(7)) * 3 - 1).clamp(0, 1)
    model = linear(weight.tolist())
    return model, x, answers(model, x).argmax(1)


@pytest.fixture
def bent() -> Classifier:
    """A smooth network of 8 × 12 pictures whose gradient is different everywhere."""
    return smooth()


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(5, 3, 8, 12, generator=seeded(1))


@pytest.fixture(scope="module")
def digits() -> tuple[Classifier, Tensor, Tensor]:
    """A small network that has learned scikit-learn's digits, and 40 others that it reads right; half is exactly 0."""
    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    model = Classifier(net, Preprocess((8, 8), (0.5,), (0.5,)), tuple("0123456789"), "digits")
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(80):
        adam.zero_grad()
        F.cross_entropy(model(x[:1500]), y[:1500]).backward()
        adam.step()
    adam.zero_grad()
    x, y = x[1500:], y[1500:]
    right = (answers(model, x).argmax(1) == y).nonzero()[:40, 0]
    assert len(right) == 40
    return model, x[right], y[right]


# --- small steps in the ball ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fgsm(norm=l2)", "pgd(norm=l2)", *SMALL_STEPS])
def test_the_smallest_budget_that_fools_a_linear_model(two, name):
    """|gap| / |w| in the dual norm: below it nothing is found, above it everything, and so for every larger budget."""
    model, x, y = two
    smallest = distances(model, x, y, "l2" if "l2" in name else "linf").amin(1)
    for i in range(len(x)):
        rows = slice(i, i + 1)
        fooled = [
            bool(attack(model, x[rows], y[rows], name, eps=float(smallest[i]) * part).fooled)
            for part in (0.5, 0.999, 1.001, 1.5, 2)
        ]
        assert fooled == [False, False, True, True, True]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_where_pgd_starts_is_inside(boxed, norm):
    _, x, _ = boxed
    with rng.seeded(0, x):
        z = within(x, 0.3, norm)
    assert (z >= 0).all()
    assert (z <= 1).all()
    assert (perturbation_norm(z - x, norm) <= 0.3 + 1e-6).all()
    assert (perturbation_norm(z - x, norm) > 0.1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_step_down_is_the_picture_less_the_step_to_the_bit(pictures, norm):
    g = torch.randn(pictures.shape, generator=seeded(2)) * (pictures > 0.2)
    assert torch.equal(step_down(pictures, g, 1 / 3, norm), pictures - 1 / 3 * steepest(g, norm))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_overstep_is_nothing_only_where_nothing_was_put_back(pictures, norm):
    within_it = project(pictures + 0.01, pictures, 0.02, norm)
    assert overstep(within_it, within_it.clone(), norm) == 0
    out = within_it.clone()
    out[3, 1, 2, 5] += 2**-10
    assert overstep(out, within_it, norm) == pytest.approx(2**-10, rel=1e-3)


def test_pgd_in_l2_ends_where_nobody_is_left_for_another_run(two):
    model, x, y = two
    assert attack(model, x, y, "pgd(norm=l2, restarts=2, steps=1)", eps=100.0).fooled.all()


def test_what_is_best_lies_in_memory_of_its_own(pictures):
    before, n = pictures.clone(), len(pictures)
    best = BestSoFar(pictures)
    best.x.zero_()
    assert torch.equal(pictures, before)
    for rows in (torch.arange(n), torch.arange(n).flip(0)):  # all of them, in their order and in another one
        best, z = BestSoFar(pictures), torch.rand(pictures.shape, generator=seeded(3))
        best.see(rows, z, torch.zeros(n), torch.ones(n, dtype=torch.bool))
        assert torch.equal(best.x[rows], z)
        best.x.zero_()
        assert bool(z.any())
        assert torch.equal(pictures, before)


@pytest.mark.parametrize("goal", ["misclassify", "become"])
def test_fgsm_in_l2_goes_along_the_gradient(two, goal):
    model, x, y = two
    w = slopes(model)
    towards = w[1 - y] - w[y]
    wanted = x + 0.1 * towards / perturbation_norm(towards, "l2").view(-1, 1, 1, 1)
    found = attack(model, x, y if goal == "misclassify" else Become(1 - y), "fgsm(norm=l2)", eps=0.1)
    torch.testing.assert_close(found.x, wanted)
    torch.testing.assert_close(found.distance, torch.full((8,), 0.1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["bim", "mi-fgsm"])
def test_small_steps_are_no_weaker_than_one(bent, pictures, name, norm):
    y = answers(bent, pictures).argmax(1)
    eps = 0.05 if norm == "linf" else 0.5
    one, more = (
        Misclassify(y).loss(answers(bent, attack(bent, pictures, y, call, eps=eps).x))
        for call in (f"fgsm(norm={norm})", f"{name}(norm={norm}, early_stop=false)")
    )
    assert (more <= one + 1e-6).all()
    assert (more < one - 1e-3).any()


def replica(model: Classifier, x: Tensor, y: Tensor, eps: float, step: float, steps: int, momentum: float, norm: str):
    """Dong et al., equations 6 and 7 (in L2 their section 3.3), for each picture by itself; momentum 0 is BIM."""
    found = []
    for picture, k in zip(x, y, strict=True):
        z, g = picture[None].clone(), torch.zeros(1, *x.shape[1:])
        for _ in range(steps):
            z.requires_grad_()
            (new,) = torch.autograd.grad(F.cross_entropy(model(z), k[None]), z)
            g = momentum * g + new / new.abs().sum()
            way = g.sign() if norm == "linf" else g / g.square().sum().sqrt()
            z = z.detach() + step * way
            if norm == "l2":
                z = picture + (z - picture) * min(1.0, eps / float((z - picture).norm()))
            z = z.clamp(picture - eps, picture + eps).clamp(0, 1)
        found.append(z)
    return torch.cat(found)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.3)])
@pytest.mark.parametrize("momentum", [None, 0.0, 0.6, 1.0])
def test_bim_and_mi_fgsm_replica(bent, pictures, norm, eps, momentum):
    """So little budget that the loss falls at every step, and the last iterate is the best."""
    y = answers(bent, pictures).argmax(1)
    step = eps / 5
    wanted = replica(bent, pictures, y, eps, step, 7, momentum or 0.0, norm)
    name = "bim" if momentum is None else f"mi-fgsm(momentum={momentum})"
    call = name.removesuffix(")") + ("(" if momentum is None else ", ")
    found = attack(bent, pictures, y, f"{call}steps=7, step={step}, norm={norm}, early_stop=false)", eps=eps).x
    assert ((found - wanted).abs() < 1e-5).float().mean() > 0.999


def test_momentum_shows(bent, pictures):
    y = answers(bent, pictures).argmax(1)
    with_it, without = (attack(bent, pictures, y, f"mi-fgsm(momentum={m})", eps=0.1).x for m in (1.0, 0.0))
    assert ((with_it - without).abs() > 0.01).float().mean() > 0.02


def test_momentum_sums_directions_and_not_lengths():
    """From 0.5 the slope is 8 to the right; behind 0.55 it is 1 to the left, behind 0.65 lies what fools.

    1 to the left and half of 1 to the right is left; were slopes summed as they are, half of 8 would lead on.
    """
    torch.testing.assert_close(even(torch.tensor([[8.0, -8.0], [1e-30, 0.0]])), torch.tensor([[1.0, -1.0], [2.0, 0.0]]))
    model = rectified([[1.0], [1.0], [1.0]], [[-8.0, 9.0, -201.0], [0.0, 0.0, 0.0]], [0.0, -0.55, -0.65])
    model.net[3].bias = nn.Parameter(torch.tensor([10.0, 0.0]))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    assert attack(model, x + 0.16, y, "fgsm", eps=0.05).fooled.all()  # what it misses
    found = attack(model, x, y, "mi-fgsm(steps=6, step=0.1, momentum=0.5)", eps=0.3)
    assert float(found.x) == pytest.approx(0.6)
    assert not found.fooled.any()


@pytest.mark.parametrize("name", ["bim", "mi-fgsm"])
def test_the_default_step(two, name):
    """A picture that meets the goal is left where it is, so how far it went is a whole number of steps."""
    model, x, y = two
    smallest = distances(model, x, y, "linf").amin(1)
    eps = float(smallest.max()) * 1.1
    step = (1.25 if name == "bim" else 1) * eps / 10
    found = attack(model, x, y, f"{name}(early_stop=true)", eps=eps)
    wanted = ((smallest / step).ceil() * step).clamp(max=eps)
    torch.testing.assert_close(found.distance, wanted, rtol=0, atol=1e-6)
    assert found.queries == pytest.approx(float((smallest / step).ceil().mean()) + 1)


def test_who_goes_on(two):
    model, x, y = two
    eps = float(distances(model, x, y, "linf").amin(1).max()) * 2
    assert attack(model, x, y, "mi-fgsm", eps=eps).queries == 11
    assert attack(model, x, y, "bim(early_stop=false)", eps=eps).queries == 11
    assert attack(model, x, y, "bim", eps=eps).queries < 6


@pytest.mark.parametrize("name", [*SMALL_STEPS, "fgsm(norm=l2)"])
def test_a_model_that_is_very_sure(two, name):
    """Whose softmax is exactly 1: the gradient of its logarithm is 0 there, and 0 / 0 is no direction."""
    model, x, y = two
    model.net[1].weight.data *= 1e4
    model.net[1].bias.data *= 1e4
    assert (answers(model, x).softmax(1).amax(1) == 1).all()
    eps = float(distances(model, x, y, "l2" if "l2" in name else "linf").amin(1).max()) * 1.01
    assert attack(model, x, y, name, eps=eps).fooled.all()


# --- the smallest change ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_is_exact_in_one_step(many, norm):
    """Over the nearest of all boundaries, not over that to the best of the others; further by the overshoot alone."""
    model, x, y = many
    wanted = distances(model, x, y, norm).amin(1)
    for over in 1e-4, 0.02, 0.5:
        found = attack(model, x, y, f"deepfool(norm={norm}, overshoot={over}, back=0)", eps=INF)
        assert found.fooled.all()
        torch.testing.assert_close(found.distance, wanted * (1 + over), rtol=2e-4, atol=0)
        assert found.queries == 3  # a look, the step, a look at what it led to
        assert found.backwards == 5  # one for each class
    assert torch.equal(answers(model, found.x).argmax(1), distances(model, x, y, norm).argmin(1))
    assert not torch.equal(answers(model, found.x).argmax(1), answers(model, x).topk(2).indices[:, 1])


def test_deepfool_looks_at_so_many_classes(many):
    model, x, y = many
    second = answers(model, x).topk(2).indices[:, 1]
    found = attack(model, x, y, "deepfool(classes=2, overshoot=1e-4, back=0)", eps=INF)
    assert found.backwards == 2
    wanted = distances(model, x, y, "l2").gather(1, second[:, None])[:, 0]
    torch.testing.assert_close(found.distance, wanted, rtol=2e-4, atol=0)
    assert (wanted > distances(model, x, y, "l2").amin(1) * 1.01).any()


@pytest.mark.parametrize("name", MINIMAL)
def test_the_smallest_change_of_a_linear_model(two, many, name):
    """Also where all outputs are below 0, which makes no difference to a margin."""
    for model, x, y in two, many:
        wanted = distances(model, x, y, "linf" if "linf" in name else "l2").amin(1)
        for goal in (y, Become(1 - y)) if len(model.labels) == 2 else (y,):
            found = attack(model, x, goal, name, eps=INF)
            assert found.fooled.all()
            assert (found.distance >= wanted * 0.9999).all()
            if model is two[0] or "deepfool" in name:  # to which class is nearest, the margin does not say
                torch.testing.assert_close(found.distance, wanted, rtol=0.005, atol=0)


def in_the_box(model: Classifier, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """The smallest change, (B,), that makes two classes equal, where pixels stay in [0, 1].

    It is clip(t w) in L2 and clip(t sign(w)) in Linf for some t (the box holds some of the pixels, the others share
    what is left), which is found by bisection.
    """
    found = []
    for picture, k in zip(x, y, strict=True):
        w = (slopes(model)[1 - k] - slopes(model)[k]).double()
        way = w if norm == "l2" else w.sign()
        bias = model.net[1].bias.detach().double()
        z = picture.double()

        def gap(t: float, z: Tensor = z, w: Tensor = w, way: Tensor = way, b: float = float(bias[1 - k] - bias[k])):
            return float((w * (z + t * way).clamp(0, 1)).sum()) + b

        t = scipy.optimize.brentq(gap, 0, 1e3, xtol=1e-12)
        found.append(perturbation_norm(((z + t * way).clamp(0, 1) - z)[None], norm))
    return torch.cat(found).float()


@pytest.mark.parametrize("name", with_slow(MINIMAL, "carlini-wagner"))
def test_the_smallest_change_where_the_box_binds(boxed, name):
    model, x, y = boxed
    norm = "linf" if "linf" in name else "l2"
    wanted = in_the_box(model, x, y, norm)
    assert (wanted > distances(model, x, y, norm).amin(1) * 1.02).all()  # so it does
    found = attack(model, x, y, name, eps=INF)
    assert found.fooled.all()
    torch.testing.assert_close(found.distance, wanted, rtol=0.01, atol=0)
    still = x == found.x
    assert still.any()
    assert (~still)[(x == 0) | (x == 1)].float().mean() > 0.3  # and those that may, do move


def nearest_of_a_class(model: Classifier, x: Tensor, k: Tensor) -> Tensor:
    """How far in L2, (B,), to where a linear model says k: a quadratic programme, solved by SciPy."""
    w, found = slopes(model).flatten(1).double().numpy(), []
    b = model.net[1].bias.detach().double().numpy()
    for picture, t in zip(x.flatten(1).double().numpy(), k.tolist(), strict=True):
        a = np.delete(w[t] - w, t, 0)
        slack = np.delete(b[t] - b, t) + a @ picture
        result = scipy.optimize.minimize(
            lambda r: r @ r,
            np.zeros(len(picture)),
            jac=lambda r: 2 * r,
            constraints={"type": "ineq", "fun": lambda r, a=a, s=slack: s + a @ r, "jac": lambda _, a=a: a},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        assert result.success
        found.append(np.linalg.norm(result.x))
    return torch.tensor(found, dtype=torch.float32)


def test_the_smallest_change_to_become_a_class(many):
    model, x, y = many
    goal = Become((y + 2) % 5)
    wanted = nearest_of_a_class(model, x, goal.t)
    one = attack(model, x, goal, "carlini-wagner", eps=INF)
    assert one.fooled.all()
    torch.testing.assert_close(
        one.distance, wanted, rtol=0.06, atol=0
    )  # where two boundaries meet, Adam goes to and fro
    assert (one.distance / wanted).median() < 1.01
    other = attack(model, x, goal, "deepfool", eps=INF)
    assert other.fooled.all()
    assert (other.distance > wanted * 0.999).all()
    assert (other.distance < wanted * 1.25).all()
    out, w = answers(model, x), slopes(model).flatten(1)  # the farthest of the boundaries in between, if one is enough
    far = (out - out.gather(1, goal.t[:, None])) / (w[goal.t][:, None] - w[None]).norm(dim=2).clamp_min(1e-9)
    enough = far.amax(1) > wanted * 0.9999
    assert enough.sum() >= 3
    assert (~enough).any()
    torch.testing.assert_close(other.distance[enough], wanted[enough], rtol=0.005, atol=0)
    straight = attack(model, x, goal, "deepfool(steps=1, overshoot=1e-3)", eps=INF)
    assert torch.equal(straight.fooled, enough)


def test_deepfool_on_the_boundary_itself():
    """Where two outputs are equal the first class is the answer, and no way leads to where one stands already."""
    model, x = linear([[1.0, 0.0], [0.0, 1.0]]), torch.full((1, 1, 1, 2), 0.5)
    for norm in "l2", "linf":
        found = attack(model, x, torch.tensor([0]), f"deepfool(overshoot=0, norm={norm}, back=0)", eps=INF)
        assert found.fooled.all()
        assert 0 < float(found.distance) < 2e-4


def test_deepfool_finds_no_way_where_there_is_none():
    model, x = linear([[1.0, 0.0], [1.0, 0.0]], [1.0, 0.0]), torch.rand(3, 1, 1, 2, generator=seeded(0))
    found = attack(model, x, torch.zeros(3, dtype=torch.long), "deepfool(steps=4)", eps=INF)
    assert torch.equal(found.x, x)
    assert not found.fooled.any()


@pytest.mark.parametrize("overshoot", [0.02, 0.05])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_replica(bent, pictures, norm, overshoot):
    """Algorithm 2, for one picture at a time: the moves are summed up, and the overshoot is of their sum."""
    x = 0.4 + 0.2 * pictures
    bent.net[5].bias.data[1] += 2.5  # so far from the boundary that one step is not enough
    y = answers(bent, x).argmax(1)
    found = attack(bent, x, y, f"deepfool(norm={norm}, overshoot={overshoot}, back=0)", eps=INF).x
    taken = []
    for i, k in enumerate(y.tolist()):
        total, steps = torch.zeros_like(x[:1]), 0
        while True:
            z = (x[i : i + 1] + (1 + overshoot) * total).requires_grad_()
            out = bent(z)[0]
            if int(out.argmax()) != k:
                break
            g = [torch.autograd.grad(value, z, retain_graph=True)[0] for value in out]
            ways = [(g[j] - g[k], float((out[k] - out[j]).detach())) for j in range(len(out)) if j != k]
            w, gap = min(ways, key=lambda way: way[1] / float(way[0].norm(p=2 if norm == "l2" else 1)))
            total = total + (gap * w / w.square().sum() if norm == "l2" else gap / w.abs().sum() * w.sign())
            steps += 1
        taken.append(steps)
        torch.testing.assert_close(found[i], z.detach()[0], rtol=0, atol=1e-4)
        assert 0 < float(z.detach().min()) < float(z.detach().max()) < 1  # the box plays no part
    assert max(taken) > 1


def test_what_deepfool_found_is_cut_to_what_is_needed(digits):
    """Nearer, by no more than was too far; and no smaller ball holds a part of it that still fools."""
    model, x, y = digits
    for norm in "l2", "linf":
        whole, cut = (attack(model, x, y, f"deepfool(norm={norm}, back={n})", eps=INF) for n in (0, 12))
        assert whole.fooled.all()
        assert cut.fooled.all()
        assert (cut.distance <= whole.distance).all()
        assert (cut.distance < whole.distance * 0.99).float().mean() > 0.3
        inner = x + (cut.x - x) * 0.99
        assert (answers(model, inner).argmax(1) == y).float().mean() > 0.9


@pytest.mark.slow
def test_carlini_wagner_is_no_farther_than_deepfool(digits):
    """To the same class; to which class it goes untargeted, the margin decides, and not the distance."""
    model, x, y = digits
    a = attack(model, x, y, "deepfool(back=0)", eps=INF)
    b = attack(model, x, Become(answers(model, a.x).argmax(1)), "carlini-wagner", eps=INF)
    assert b.fooled.all()
    assert (b.distance <= a.distance * 1.01).all()
    assert (b.distance / a.distance).median() < 0.99
    c = attack(model, x, y, "carlini-wagner(steps=100)", eps=INF)
    alike = answers(model, a.x).argmax(1) == answers(model, c.x).argmax(1)
    assert alike.float().mean() > 0.6
    assert (c.distance <= a.distance * 1.01)[alike].all()
    assert c.distance.mean() < a.distance.mean() * 1.02


def test_carlini_wagner_moves_pixels_of_0_and_1(digits):
    """Really, not by a rounding: where arctanh has no value the search would stand still."""
    model, x, y = digits
    assert (x == 0).float().mean() > 0.4
    found = attack(model, x, y, "carlini-wagner(steps=60, searches=4)", eps=INF)
    moved = (found.x - x).abs() > 0.01
    assert moved[x == 0].float().mean() > 0.2
    assert moved[x == 1].float().mean() > 0.2
    assert found.fooled.all()


def test_carlini_wagner_with_confidence(two):
    """(gap + confidence) / |w|: the margin that is asked for is there, and not much more."""
    model, x, y = two
    w = float((slopes(model)[0] - slopes(model)[1]).norm())
    plain = distances(model, x, y, "l2").amin(1)
    for confidence in 0.2, 0.5:
        found = attack(model, x, y, f"carlini-wagner(confidence={confidence})", eps=INF)
        left = Misclassify(y).margin(answers(model, found.x))
        assert (left <= -confidence + 1e-5).all()
        torch.testing.assert_close(found.distance, plain + confidence / w, rtol=0.01, atol=0)


def test_carlini_wagner_seeks_c_for_each_picture(two):
    """Whichever c it begins with, and whatever the outputs are measured in."""
    model, x, y = two
    wanted = distances(model, x, y, "l2").amin(1)
    for c, searches in ((1e-3, 7), (30.0, 9)):  # 0.03 is about what they need
        found = attack(model, x, y, f"carlini-wagner(c={c}, searches={searches}, steps=100, back=0)", eps=INF)
        torch.testing.assert_close(found.distance, wanted, rtol=0.02, atol=0)
    model.net[1].weight.data *= 1e-3
    model.net[1].bias.data *= 1e-3
    found = attack(model, x, y, "carlini-wagner(searches=9, steps=100, back=0)", eps=INF)
    torch.testing.assert_close(found.distance, wanted, rtol=0.02, atol=0)
    model.net[1].weight.data *= 1e6
    model.net[1].bias.data *= 1e6
    found = attack(model, x, y, "carlini-wagner(searches=8, steps=100, back=0)", eps=INF)
    torch.testing.assert_close(found.distance, wanted, rtol=0.02, atol=0)


def test_carlini_wagner_ends_where_nothing_is_gained(two):
    model, x, y = two
    on = attack(model, x, y, "carlini-wagner(back=0)", eps=INF)
    assert on.queries < 7 * 201 * 0.8
    assert on.backwards <= on.queries
    short = attack(model, x, y, "carlini-wagner(steps=30, searches=2, back=0)", eps=INF)
    assert (short.queries, short.backwards) == (2 * 31, 2 * 30)
    clear, y, sure = linear([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0]), torch.tensor([[[[0.9, 0.1]]]])
    for c, queries in ((1e-4, 81), (3.0, 201)):  # with the first nothing ever fools, which shows after two checks
        found = attack(clear, sure, y, f"carlini-wagner(c={c}, searches=1, back=0)", eps=INF)
        assert (found.queries, bool(found.fooled)) == (queries, c > 1)


@pytest.mark.parametrize(
    "name",
    with_slow(
        ["bim", "mi-fgsm(early_stop=true)", "deepfool", "carlini-wagner(steps=50, searches=3)"],
        "carlini-wagner(steps=50, searches=3)",
    ),
)
def test_a_picture_costs_what_it_costs_alone(bent, pictures, name):
    """Who is done costs nothing more while others go on."""
    y = answers(bent, pictures).argmax(1)
    eps = INF if "minimal" in attack_claims(name) else 0.06
    whole = attack(bent, pictures, y, name, eps=eps)
    alone = [attack(bent, pictures[i : i + 1], y[i : i + 1], name, eps=eps) for i in range(len(y))]
    assert whole.queries * len(y) == pytest.approx(sum(a.queries for a in alone))
    assert whole.backwards * len(y) == pytest.approx(sum(a.backwards for a in alone))
    if "carlini" not in name:
        assert len({a.queries for a in alone}) > 1


def attack_claims(name: str) -> frozenset[str]:
    from clearsight.core.catalogue import parse

    return parse(name, "attacks").method.claims


class Ones:
    """A goal of the user's own, with nothing but what a goal must have."""

    def loss(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0]

    def met(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0] < 0

    def __getitem__(self, rows: Tensor | slice) -> "Ones":
        return self


@pytest.mark.parametrize("name", ["deepfool", "carlini-wagner"])
def test_a_goal_of_ones_own_is_refused_where_classes_are_needed(bent, pictures, name):
    with pytest.raises(Refused, match=f"{name}.*Become"):
        attack(bent, pictures, Ones(), name, eps=INF)


@pytest.mark.parametrize(
    "call",
    [
        "bim(steps=0)",
        "mi-fgsm(steps=0)",
        "mi-fgsm(momentum=-1)",
        "deepfool(classes=1)",
        "deepfool(overshoot=-0.1)",
        "deepfool(back=-1)",
        "carlini-wagner(searches=0)",
        "carlini-wagner(c=0)",
        "carlini-wagner(rate=0)",
        "carlini-wagner(confidence=-1)",
    ],
)
def test_options_that_cannot_be_are_refused(bent, pictures, call):
    with pytest.raises(Refused, match="must be "):
        attack(bent, pictures, torch.arange(5) % 4, call, eps=0.1)


@pytest.mark.parametrize("eps", [0.1, 8 / 255, float("inf")])
def test_a_budget_for_each_picture_cuts_as_one_for_all(eps):
    generator = torch.Generator().manual_seed(0)
    x, raw = torch.rand(2, 5, 1, 9, 9, generator=generator)
    raw = 3 * raw - 1
    one, each = (project(raw, x, limit, "linf") for limit in (eps, torch.full((5,), eps)))
    assert torch.equal(one, each)
    assert torch.equal(one, raw.clamp(x - eps, x + eps).clamp(0, 1))
    assert one.min() == 0
    assert one.max() == 1


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.0, 0.5), (0.5, 1.0)])
def test_pixels_are_normalised_into_a_tensor_of_their_own(mean, std):
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    model = Classifier(net, Preprocess(2, (mean,), (std,)), ("a", "b"))
    x = torch.rand(3, 1, 2, 2) - 0.5  # what is below 0 would be lost
    before = x.clone()
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(z)[:, 0].sum(), z)
    model(x)
    assert torch.equal(x, before)
    normal = ((x - mean) / std).relu()
    torch.testing.assert_close(model(x), net[2](normal.flatten(1)))
    torch.testing.assert_close(g, (net[2].weight[0].view(1, 1, 2, 2) / std) * (normal > 0))


def test_mean_and_std_are_those_of_the_preprocess_in_the_type_of_the_pixels():
    with torch.inference_mode():
        made = Preprocess((2, 2), (0.485, 0.456), (0.229, 0.224))
    other = dataclasses.replace(made, mean=(0.1, 0.2))
    for p in (made, pickle.loads(pickle.dumps(made)), copy.deepcopy(made), other):
        x = torch.rand(3, 2, 2, 2, dtype=torch.float64).requires_grad_()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(2, 1, 1) for v in (p.mean, p.std))
        assert torch.equal(normalised(p, x), (x - mean) / std)
        z = normalised(p, x.float())
        assert z.dtype == torch.float32
        assert torch.equal(z, (x.float() - mean.float()) / std.float())
        (g,) = torch.autograd.grad(z.sum(), x)
        torch.testing.assert_close(g, (1 / std).expand_as(g), rtol=1e-6, atol=0.0)
