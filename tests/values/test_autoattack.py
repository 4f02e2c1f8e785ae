"""Whether APGD, FAB, Square and AutoAttack find what there is to find."""

import importlib
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from clearsight.attacks.common import rival_classes
from clearsight.attacks.common.apgd import checkpoints, dlr, towards_each
from clearsight.attacks.common.fab import decision_boundary, project, reached_distance
from clearsight.attacks.common.rival_classes import NONE, gap, leave_later, rivals
from clearsight.attacks.square import (
    HALVED,
    add_hills,
    halvings,
    hill_and_valley,
    place_square,
    places_inside,
    square_sides,
)
from clearsight.core import rng
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.blackbox import BlackBox
from clearsight.core.classifier import Classifier
from clearsight.core.norms import perturbation_norm
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Become, Misclassify
from clearsight.errors import NoGradient, Notice, Refused
from clearsight.runner.results import Attacked
from clearsight.runner.run import attack, explain
from clearsight.testing import linear
from thinning import paired, with_slow

square_file = importlib.import_module("clearsight.attacks.square")


def seeded(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def outputs(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.fixture(scope="module")
def plane() -> tuple[Classifier, Tensor, Tensor, dict[str, Tensor]]:
    """A linear model of two classes, pictures far from the borders of the box, their classes and exact distances."""
    weight = torch.randn(2, 20, generator=seeded(4)) / 4
    model, x = linear(weight.tolist(), [0.05, 0.0]), torch.rand(6, 1, 1, 20, generator=seeded(5)) * 0.2 + 0.4
    logits, w = outputs(model, x), weight[0] - weight[1]
    margin = (logits[:, 0] - logits[:, 1]).abs()
    return model, x, logits.argmax(1), {"linf": margin / w.abs().sum(), "l2": margin / w.norm()}


@pytest.fixture(scope="module")
def many() -> tuple[Classifier, Tensor, Tensor]:
    """A linear model of six classes."""
    weight = torch.randn(6, 24, generator=seeded(1)) / 3
    model, x = linear(weight.tolist()), torch.rand(8, 1, 1, 24, generator=seeded(2)) * 0.2 + 0.4
    return model, x, outputs(model, x).argmax(1)


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, Tensor, Tensor]:
    """A small network that has learned which of five patterns, much disturbed, a picture shows; and 24 pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        patterns = torch.rand(5, 1, 10, 10)
        y = torch.arange(400) % 5
        x = (0.5 + 0.35 * (patterns[y] - 0.5) + 0.25 * torch.randn(400, 1, 10, 10)).clamp(0, 1)
        net = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten())
        net.append(nn.Linear(144, 5))
        adam = torch.optim.Adam(net.parameters(), 0.003)
        for _ in range(60):
            adam.zero_grad()
            F.cross_entropy(net(x[24:]), y[24:]).backward()
            adam.step()
    adam.zero_grad()
    model = Classifier(net.eval().requires_grad_(False), Preprocess((10, 10), (0.0,), (1.0,)), tuple("abcde"))
    right = outputs(model, x[:40]).argmax(1) == y[:40]
    x, y = x[:40][right][:24], y[:40][right][:24]
    assert len(x) == 24
    return model, x, y


# --- APGD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["apgd-ce(steps=40", "apgd-dlr(steps=40", "auto-attack(queries=10, steps=30"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_fools_a_linear_model_as_soon_as_it_can_be(plane, name, norm):
    model, x, y, smallest = plane
    call = f"{name}, norm={norm})"
    for i in range(3):
        rows = slice(i, i + 1)
        assert not attack(model, x[rows], y[rows], call, eps=float(smallest[norm][i]) * 0.999).fooled.any()
        assert attack(model, x[rows], y[rows], call, eps=float(smallest[norm][i]) * 1.001).fooled.all()


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr"])
def test_apgd_ends_in_the_best_point_of_a_linear_model(plane, name):
    """Of the cube its worst corner, cut by the box; of the ball the point against the weights."""
    model, x, y, _ = plane
    w = model.net[1].weight.detach()
    down = torch.where(y[:, None] == 0, w[1] - w[0], w[0] - w[1]).view_as(x)
    for eps in 0.07, 0.9:
        found = attack(model, x, y, f"{name}(early_stop=false)", eps=eps).x
        torch.testing.assert_close(found, (x + eps * down.sign()).clamp(0, 1))
    found = attack(model, x, y, f"{name}(early_stop=false, norm=l2)", eps=0.3).x
    torch.testing.assert_close(found, x + 0.3 * down / down.flatten(1).norm(dim=1).view(-1, 1, 1, 1), atol=2e-4, rtol=0)


def test_apgd_dlr_keeps_the_third_output_low():
    """The pixel moves the third output alone: lower, it makes (3 - 1) / (3 - z) smaller; higher, the log-odds."""
    model, x = linear([[0.0], [0.0], [1.0]], [3.0, 1.0, -1.0]), torch.full((2, 1, 1, 1), 0.5)
    x[1] = 0.6
    for name, way in ("apgd-dlr", -1), ("apgd-ce", 1):
        found = attack(model, x, torch.zeros(2, dtype=torch.long), f"{name}(steps=5)", eps=0.1)
        torch.testing.assert_close(found.x, x + way * 0.1)


def test_checkpoints_are_those_of_the_paper():
    """p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06); at ceil(p_j N)."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(round(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06), 10))
    for steps in 100, 200, 1000:
        wanted = [int(np.ceil(round(p * steps, 6))) for p in shares[1:] if p <= 1]
        assert list(checkpoints(steps)) == wanted
    assert list(checkpoints(1)) == [1]
    assert sum(checkpoints(57).values()) == max(checkpoints(57))


def replica(model: Classifier, x: Tensor, y: Tensor, eps: float, steps: int, norm: str) -> Tensor:
    """Algorithm 1 of the paper for one picture, written out plainly: the iterate with the highest cross-entropy."""

    def look(z: Tensor) -> tuple[float, Tensor]:
        z = z.detach().requires_grad_()
        loss = F.cross_entropy(model(z).double(), y)
        (g,) = torch.autograd.grad(loss, z)
        return float(loss.detach()), g

    def keep(z: Tensor) -> Tensor:
        d = z - x
        d = d.clamp(-eps, eps) if norm == "linf" else d * min(1.0, eps / float(d.norm()))
        return (x + d).clamp(0, 1)

    with rng.seeded(0, x, "apgd-ce"):
        u = rng.normal(x) if norm == "l2" else 2 * rng.uniform(x) - 1
    u = u / (u.norm() if norm == "l2" else u.abs().max())
    z = [keep(x + eps * u)]
    f, g = [0.0], None
    f[0], g = look(z[0])
    top, top_g, top_f = z[0], g, f[0]
    step, marks, ends = 2 * eps, [(2 * eps, f[0])], [0, *checkpoints(steps)]
    for k in range(steps):
        way = g.sign() if norm == "linf" else g / g.norm()
        ahead = keep(z[-1] + step * way)
        before = z[-2] if k else z[-1]
        momentum = 0.75 if k else 1.0
        z.append(keep(z[-1] + momentum * (ahead - z[-1]) + (1 - momentum) * (z[-1] - before)))
        loss, g = look(z[-1])
        f.append(loss)
        if loss > top_f:
            top, top_g, top_f = z[-1], g, loss
        if k + 1 in ends:
            since = ends[ends.index(k + 1) - 1]
            rose = sum(f[i + 1] > f[i] for i in range(since, k + 1))
            few = rose <= 0.75 * (k + 1 - since)  # so in the authors' program
            stale = since > 0 and marks[-1] == (step, top_f) and marks[-2][0] == step
            marks.append((step, top_f))
            if few or stale:
                step /= 2
                z[-1], g = top, top_g
    return top


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_is_a_replica_of_the_paper(trained, norm):
    model, x, y = trained
    eps = 0.15 if norm == "linf" else 1.0
    ours = attack(model, x[:6], y[:6], f"apgd-ce(steps=50, early_stop=false, norm={norm})", eps=eps).x
    theirs = torch.cat([replica(model, x[i : i + 1], y[i : i + 1], eps, 50, norm) for i in range(6)])
    a, b = (F.cross_entropy(outputs(model, z), y[:6], reduction="none") for z in (ours, theirs))
    met = outputs(model, ours).argmax(1) != y[:6]
    torch.testing.assert_close(a[met], b[met], rtol=1e-3, atol=1e-4)
    assert met.sum() >= 4
    assert ((ours - theirs).abs() < 1e-4)[met].float().mean() > 0.98


@pytest.mark.parametrize("norm", with_slow(["linf", "l2"], "linf"))
def test_apgd_is_not_weaker_than_pgd_of_as_many_steps(trained, norm):
    """By the loss that both make small: in the mean, and for nearly every picture."""
    model, x, y = trained
    eps = 0.1 if norm == "linf" else 0.6
    loss = {}
    for name in "pgd", "apgd-ce":
        found = attack(model, x, y, f"{name}(steps=100, early_stop=false, norm={norm})", eps=eps)
        loss[name] = Misclassify(y).loss(outputs(model, found.x))
    assert (loss["apgd-ce"] <= loss["pgd"] + 1e-3).float().mean() > 0.9
    assert loss["apgd-ce"].mean() < loss["pgd"].mean() + 1e-3


def test_more_restarts_of_apgd_ce_are_never_worse(trained):
    model, x, y = trained
    loss = []
    for restarts in 1, 3:
        found = attack(model, x, y, f"apgd-ce(steps=5, restarts={restarts}, early_stop=false)", eps=0.05)
        score = Misclassify(y).loss(outputs(model, found.x))
        loss.append(torch.where(found.fooled, -1e3, score))
    assert (loss[1] <= loss[0] + 1e-5).all()
    assert (loss[1] < loss[0] - 1e-5).any()


def test_early_stop_of_apgd_ce_saves_passes(plane):
    model, x, y, smallest = plane
    eps = float(smallest["linf"].max()) * 1.5
    stop, on = (attack(model, x, y, f"apgd-ce(steps=30, early_stop={s})", eps=eps) for s in ("true", "false"))
    assert stop.fooled.all()
    assert on.fooled.all()
    assert on.queries == 31
    assert stop.queries < 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_starts_at_random_points_of_full_size(norm):
    """Where the model is the same everywhere the first is kept; the box cuts nothing off."""
    model = linear([[0.0] * 300] * 2, [1.0, 0.0])
    x = torch.full((20, 1, 1, 300), 0.5) + torch.linspace(-0.01, 0.01, 20).view(-1, 1, 1, 1)
    found = attack(model, x, torch.zeros(20, dtype=torch.long), f"apgd-ce(steps=1, norm={norm})", eps=0.2)
    torch.testing.assert_close(found.distance, torch.full((20,), 0.2), rtol=1e-4, atol=1e-6)
    move = (found.x - x).flatten(1)
    assert (torch.corrcoef(move) - torch.eye(20)).abs().max() < 0.35  # each picture has its own
    ratio = (move.pow(4).mean() / move.pow(2).mean() ** 2).item()  # 9/5 of a uniform number, 3 of a normal one
    assert ratio == pytest.approx(1.8 if norm == "linf" else 3.0, rel=0.06)


# --- DLR --------------------------------------------------------------------------------------------------------------


def test_dlr_by_hand():
    z = torch.tensor([[7.0, 1.0, 4.0, 2.0, 5.0]])
    right, wrong = Misclassify(torch.tensor([0])), Misclassify(torch.tensor([3]))
    assert float(dlr(right, z)) == pytest.approx((7 - 5) / (7 - 4))
    assert float(dlr(wrong, z)) == pytest.approx((2 - 7) / (7 - 4))
    assert float(dlr(right, z, torch.tensor([1]))) == pytest.approx((7 - 1) / (7 - (4 + 2) / 2))
    assert float(dlr(Become(torch.tensor([2])), z)) == pytest.approx((7 - 4) / (7 - (4 + 2) / 2))
    both = Misclassify(torch.tensor([[True, False, False, False, True]]))  # then 5 stands for nothing
    assert float(dlr(both, z)) == pytest.approx((7 - 4) / (7 - 2))
    for goal in right, wrong, both, Become(torch.tensor([2])):
        torch.testing.assert_close(dlr(goal, 1e4 * z + 3), dlr(goal, z))


def test_dlr_of_each_picture_counts_the_outputs_that_are_left_of_it():
    """Beside one whose four best outputs are finite stands one that has three: z_1 - (z_2 + z_3) / 2 divides there."""
    z = torch.tensor([[7.0, 1.0, 4.0, 2.0], [7.0, 1.0, 4.0, -torch.inf]])
    found = dlr(Misclassify(torch.tensor([0, 0])), z, torch.tensor([1, 1]))
    torch.testing.assert_close(found, torch.tensor([6 / (7 - (2 + 1) / 2), 6 / (7 - (4 + 1) / 2)]))


@pytest.mark.parametrize("goal", [Misclassify(torch.tensor([0])), Become(torch.tensor([1]))])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_dlr_of_few_classes_has_a_slope_and_the_right_sign(goal, classes):
    z = torch.tensor([[3.0, 0.5, 1.5, 0.9][:classes]], requires_grad=True)
    value = dlr(goal, z)
    (g,) = torch.autograd.grad(value.sum(), z)
    assert value > 0
    assert g.isfinite().all()
    assert g.abs().max() > 0.05
    down = (z - 1e-3 * g).detach()
    assert dlr(goal, down) < value
    moved = torch.tensor([[0.5, 3.0, 1.5, 0.9][:classes]])
    assert dlr(goal, moved) < 0
    if classes == 2:
        assert value.item() == 2.5


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("part", ["apgd-t", "fab-t", "square", "all"])
def test_few_classes(classes, part):
    weight = torch.randn(classes, 16, generator=seeded(0))
    model, x = linear(weight.tolist()), torch.rand(6, 1, 1, 16, generator=seeded(1)) * 0.4 + 0.3
    y = outputs(model, x).argmax(1)
    for goal in Misclassify(y), Become((y + 1) % classes):
        assert attack(model, x, goal, f"auto-attack(part={part}, queries=200)", eps=0.3).fooled.any()
    assert attack(model, x, y, f"auto-attack(part={part}, queries=500)", eps=0.6).fooled.all()


def test_rivals_and_gaps():
    z = torch.tensor([[7.0, 1.0, 4.0, 2.0], [0.0, 3.0, 1.0, 2.0]])
    goal = Misclassify(torch.tensor([[True, False, False, False], [True, True, True, False]]))
    assert rivals(goal, z, 9).tolist() == [[2, 3, 1], [3, NONE, NONE]]
    assert rivals(Become(torch.tensor([1, 0])), z, 9).tolist() == [[1], [0]]
    assert gap(goal, z, torch.tensor([1, 3])).tolist() == [6.0, 1.0]
    assert gap(Become(torch.tensor([1, 0])), z, torch.tensor([1, 0])).tolist() == [6.0, 3.0]
    assert gap(Misclassify(torch.tensor([3, 0])), z, torch.tensor([0, 1])).tolist() == [-5.0, -3.0]  # wrong already
    with pytest.raises(Refused, match="at least 1"):
        rivals(goal, z, 0)


def test_a_goal_that_names_no_classes_is_refused(plane):
    model, x, y, _ = plane

    class Mine:
        def loss(self, out: Tensor) -> Tensor:
            return out[:, 0]

        def met(self, out: Tensor) -> Tensor:
            return out[:, 0] < -100

        def __getitem__(self, rows: Any) -> "Mine":
            return self

    assert attack(model, x, Mine(), "apgd-ce(steps=2)", eps=0.1).x.isfinite().all()
    for name in "apgd-dlr", "fab", "auto-attack":
        with pytest.raises(Refused, match="names no class: give right classes"):
            attack(model, x, Mine(), name, eps=0.1)
    for call in "apgd-ce(steps=0)", "apgd-dlr(rho=2.0)", "fab(steps=0)", "fab(classes=0)", "square(p=0.0)":
        with pytest.raises(Refused, match=r"from 1|at least 1"):
            attack(model, x, y, call, eps=0.1)


# --- FAB --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_on_box_and_plane_is_exact(norm):
    """Against a linear program, and a quadratic one; planes that do not cut the box lead to the nearest corner."""
    z, w = torch.rand(30, 7, generator=seeded(0)), torch.randn(30, 7, generator=seeded(1))
    w[::3, 2], z[::4, 1], z[1::4, 1], w[5] = 0, 0, 1, 0
    level = (w * z).sum(1) + 2.5 * torch.randn(30, generator=seeded(2))
    move = project(z, w, level, norm).double()
    lowest, highest = w.clamp(max=0).sum(1), w.clamp(min=0).sum(1)
    cuts = (lowest < level) & (level < highest)
    assert 10 < cuts.sum() < 29
    end = z + move
    assert end.min() >= -1e-6
    assert end.max() <= 1 + 1e-6
    torch.testing.assert_close((w * end).sum(1)[cuts], level[cuts].double(), atol=1e-5, rtol=0)
    for i in range(30):
        p, v, b = z[i].double().numpy(), w[i].double().numpy(), float(level[i])
        if not cuts[i]:
            corner = (w[i] > 0).double() if level[i] > (w[i] * z[i]).sum() else (w[i] < 0).double()
            there = torch.where(w[i] == 0, z[i].double(), corner)
            torch.testing.assert_close(end[i], there, atol=1e-6, rtol=0)
        elif norm == "linf":  # variables: the move, and the largest of it
            more = np.vstack([np.c_[np.eye(7), -np.ones(7)], np.c_[-np.eye(7), -np.ones(7)]])
            bounds = [*zip(-p, 1 - p, strict=True), (0, None)]
            best = linprog([0] * 7 + [1], more, np.zeros(14), [[*v, 0]], [b - v @ p], bounds)
            assert float(move[i].abs().max()) == pytest.approx(best.fun, abs=1e-6)
        else:
            hold = {"type": "eq", "fun": lambda d, v=v, p=p, b=b: v @ (p + d) - b, "jac": lambda d, v=v: v}
            best = minimize(
                lambda d: d @ d,
                np.zeros(7),
                jac=lambda d: 2 * d,
                bounds=list(zip(-p, 1 - p, strict=True)),
                constraints=hold,
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 500},
            )
            assert float(move[i].norm()) == pytest.approx(best.fun**0.5, abs=2e-5)


@pytest.mark.parametrize(
    ("call", "norm"), paired(["fab", "fab(targeted=true)", "fab(restarts=2, steps=30)"], ["linf", "l2"])
)
def test_fab_finds_the_exact_distance_on_linear_models(plane, many, call, norm):
    call = f"{call[:-1]}, norm={norm})" if "(" in call else f"{call}(norm={norm})"
    model, x, y, smallest = plane
    found = attack(model, x, y, call, eps=float("inf"))
    torch.testing.assert_close(found.distance, smallest[norm], rtol=1e-3, atol=0)
    assert found.fooled.all()
    assert attack(model, x, Become(1 - y), call, eps=float("inf")).distance.tolist() == found.distance.tolist()
    model, x, y = many  # the nearest of five boundaries, away from the box
    w = model.net[1].weight.detach()
    logits = outputs(model, x)
    slopes = w[y][:, None] - w[None]
    steep = slopes.abs().sum(2) if norm == "linf" else slopes.norm(dim=2)
    margin = logits.gather(1, y[:, None]) - logits
    exact = (margin / steep).scatter(1, y[:, None], torch.inf).amin(1)
    torch.testing.assert_close(attack(model, x, y, call, eps=float("inf")).distance, exact, rtol=2e-3, atol=0)


@pytest.mark.parametrize(("norm", "value", "slope"), [("l2", 0.9, [1.5, 0, 0, 0]), ("linf", 1.4, [1, 1, 1, 1])])
def test_fab_goes_to_the_boundary_that_is_nearest_in_its_norm(norm, value, slope):
    """1.4 / 2 and 0.9 / 1.5 away in l2, 1.4 / 4 and 0.9 / 1.5 in linf."""
    model = linear([[0.0] * 4, [1.0] * 4, [1.5, 0.0, 0.0, 0.0]], [0.0, -3.4, -1.65])
    x, to = torch.full((1, 1, 1, 4), 0.5), torch.tensor([[1, 2]])
    found = decision_boundary(model, x, Misclassify(torch.tensor([0])), to, norm)
    torch.testing.assert_close(found[0], torch.tensor([value]))
    torch.testing.assert_close(found[1].flatten(), -torch.tensor(slope, dtype=torch.float32))


def test_fab_has_reached_nothing_where_the_goal_is_not_met():
    x = torch.zeros(2, 1, 1, 3)
    best = BestSoFar(x, "linf")
    best.see(torch.arange(2), x + 0.25, torch.zeros(2), torch.tensor([True, False]))
    assert reached_distance(best).tolist() == [0.25, float("inf")]


def test_fab_in_the_corner_of_the_box():
    """From (0, 0.6) the plane 3 a = b + 0.1 ... a cannot fall: with a = 0 nothing but b can go, down to 0.3."""
    model = linear([[-1.0, 1.0], [0.0, 0.0]], [-0.3, 0.0])
    x = torch.tensor([[[[1.0, 1.6 - 1e-9]]]]).clamp(0, 1)
    x[..., 0] = 0.0
    x[..., 1] = 0.9  # score 0.6: a up or b down, both by 0.3 in linf, by 0.3 each in l2
    y = torch.tensor([0])
    torch.testing.assert_close(attack(model, x, y, "fab", eps=1.0).distance, torch.tensor([0.3]), rtol=1e-3, atol=0)
    x[..., 0] = 0.95  # now a can rise by 0.05 alone, and b must do the rest
    model = linear([[-1.0, 1.0], [0.0, 0.0]], [0.5, 0.0])  # score 0.45: 0.05 + 0.4
    for norm, far in ("linf", 0.4), ("l2", (0.05**2 + 0.4**2) ** 0.5):
        found = attack(model, x, y, f"fab(norm={norm})", eps=1.0)
        torch.testing.assert_close(found.distance, torch.tensor([far]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm", with_slow(["linf", "l2"], "l2"))
def test_fab_is_near_where_apgd_begins_to_succeed(trained, norm):
    """No picture has a smaller change by much, as far as APGD knows; and what FAB found is one."""
    model, x, y = trained
    found = attack(model, x, y, f"fab(steps=40, norm={norm})", eps=float("inf"))
    assert found.fooled.all()
    median = float(found.distance.median())
    call = f"apgd-ce(steps=40, norm={norm})"
    for share_ in 0.9, 1.1:
        a = attack(model, x, y, call, eps=share_ * median)
        assert (a.fooled == (found.distance < share_ * median)).float().mean() > 0.85


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_as_a_part_finds_what_it_finds_alone(trained, norm):
    """It stops where it has found enough, for that picture alone, and not before."""
    model, x, y = trained
    alone = attack(model, x, y, f"fab(targeted=true, steps=20, classes=2, norm={norm})", eps=float("inf"))
    assert alone.queries == 1 + 2 * (2 * 20) + 2 + 3  # the look, two passes a step for each class, and the search
    eps = float(alone.distance.median()) + 1e-4
    part = attack(model, x, y, f"auto-attack(part=fab-t, steps=20, classes=2, norm={norm})", eps=eps)
    assert torch.equal(part.fooled, alone.distance <= eps)
    assert part.backwards < 0.95 * alone.backwards


def test_fab_with_more_starts_is_not_farther(trained):
    model, x, y = trained
    one, three = (attack(model, x, y, f"fab(steps=1, restarts={n})", eps=float("inf")) for n in (1, 3))
    assert (three.distance <= one.distance * 1.002).all()
    assert (one.backwards, three.backwards) == (4, 12)


def test_fab_with_more_classes_is_not_farther(many):
    model, x, y = many
    one, all_ = (attack(model, x, y, f"fab(classes={n}, steps=20)", eps=float("inf")) for n in (1, 9))
    assert (all_.distance <= one.distance * 1.001).all()
    assert one.backwards == 20
    assert all_.backwards == 5 * 20


# --- Square -----------------------------------------------------------------------------------------------------------


def test_the_share_of_the_squares():
    used = torch.tensor([0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001])
    assert halvings(used, 10000).tolist() == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert halvings(torch.tensor([5, 6]), 5000).tolist() == [0, 1]  # 6 of 5000 are 12 of 10000
    assert len(HALVED) == 9
    assert square_sides(torch.Size((28, 28)), 0.8, "linf") == [25, 25]
    assert square_sides(torch.Size((28, 28)), 0.8, "l2") == [25, 25]
    assert square_sides(torch.Size((28, 28)), 0.0016, "linf") == [1, 1]
    assert square_sides(torch.Size((28, 28)), 0.0016, "l2") == [3, 3]
    assert square_sides(torch.Size((1, 20)), 0.8, "linf") == [1, 4]
    assert square_sides(torch.Size((20,)), 0.5, "linf") == [10]


def test_squares_are_everywhere_alike_and_whole():
    u = torch.rand(4000, 2, generator=seeded(0))
    shape, sides = torch.Size((5, 6)), torch.tensor([[2, 3]]).expand(4000, 2)
    (down, across), start = place_square(shape, sides, u)
    inside, index = down & across, places_inside(shape, sides, start)
    assert (inside.flatten(1).sum(1) == 6).all()
    assert torch.equal(index[inside].view(-1, 6), torch.arange(6).expand(4000, 6))
    corner = inside[:, 0, 0].float().mean(), inside[:, -1, -1].float().mean()
    for share_ in corner:
        assert float(share_) == pytest.approx(1 / 16, abs=0.015)  # of 4 x 4 places one


def test_the_hill_of_square_beside_its_valley():
    """Written out from section 3.4 for a 5 x 5 square: rings of 1 + 1/4 (+ 1/9) around the centres of the halves."""
    found = hill_and_valley((5, 5), 0)
    assert float(found.norm()) == pytest.approx(1)
    up, down = found[:2], found[2:]
    for part, sign in ((up, 1), (down, -1)):
        assert (part * sign > 0).all()
        assert float(part.norm()) == pytest.approx(0.5**0.5)
    values = (1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9)
    assert float(up[1, 2] / up[1, 1]) == pytest.approx(values[0] / values[1])
    assert float(up[1, 2] / up[1, 0]) == pytest.approx(values[0] / values[2])
    assert torch.equal(hill_and_valley((5, 5), 1), found.T)


def test_square_adds_its_hill_to_what_stood_there():
    """A square as large as the picture, on a change of the whole budget: (change / its size +- hill), of size eps."""
    x, eps = torch.full((40, 1, 3), 0.5) + torch.linspace(-0.1, 0.1, 40).view(40, 1, 1), 0.1  # each has its own draws
    move = torch.tensor([0.0, 0.6, 0.8]) * eps
    with rng.seeded(0, x, "square"):
        plan = torch.cat([torch.full((40, 1), 3.0), rng.uniform(torch.empty(40, 4))], 1)
    found = add_hills(x, x + move, eps, plan) - x
    either = [move / eps + sign * hill_and_valley((3,), 0) for sign in (1, -1)]
    wanted = torch.stack([eps * e / e.norm() for e in either])
    nearest = (found - wanted).norm(dim=2).argmin(1)
    torch.testing.assert_close(found[:, 0], wanted[nearest], rtol=1e-4, atol=1e-6)
    assert 8 < int(nearest.sum()) < 32  # either sign is as likely


def test_square_linf_is_made_of_eps_alone(trained):
    """Every pixel stands at x + eps or x - eps, cut to [0, 1]; columns begin alike."""
    model, x, y = trained
    one = attack(model, x, y, "square(queries=1)", eps=0.01).x
    assert (
        torch.equal(one, torch.where(one > x, x + 0.01, x - 0.01).clamp(0, 1))
        or (((one - x).abs() - 0.01).abs() < 1e-6)[(x > 0.01) & (x < 0.99)].all()
    )
    away = (one - x).sign()
    inner = (x > 0.01) & (x < 0.99)
    first = torch.where(inner.all(2, keepdim=True), away, 0)
    assert (first == first[:, :, :1]).all()
    many_ = attack(model, x, y, "square(queries=100)", eps=0.01)
    assert (((many_.x - x).abs() - 0.01).abs() < 1e-6)[inner].all()
    assert not many_.fooled.any() or many_.first.max() <= 100


@pytest.mark.parametrize("eps", [0.1, 1 / 255, 0.3])
def test_no_pixel_of_square_is_beyond_eps_by_rounding(trained, monkeypatch, eps):
    """x + eps rounds up at many pixels; what is sent is the nearest number that does not, in [0, 1]."""
    model, x, y = trained
    sent: list[Tensor] = []
    ask = BlackBox.ask_until_better

    def seen(box: BlackBox, z: Tensor, of: Tensor, *args: Any, known: Tensor) -> Any:
        sent.append((z - box.clean[of[~known]]).abs())
        assert ((z >= 0) & (z <= 1)).all()
        return ask(box, z, of, *args, known=known)

    monkeypatch.setattr(BlackBox, "ask_until_better", seen)
    attack(model, x[:4], y[:4], "square(queries=20)", eps=eps)
    assert (((x + eps) - x).abs() > eps).any()
    far = torch.cat(sent)
    assert float(far.max()) <= torch.tensor(eps)
    assert float(far.max()) > eps - 1e-6


def passes_of(model: Classifier, call: str, x: Tensor, y: Tensor, eps: float) -> tuple[Attacked, int]:
    """What an attack finds, and how often it runs the network, whatever the number of pictures."""
    runs: list[int] = []
    handle = model.net.register_forward_pre_hook(lambda _m, args: runs.append(len(args[0])))
    try:
        return attack(model, x, y, call, eps=eps), len(runs)
    finally:
        handle.remove()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.25)])
def test_square_looks_ahead_and_nobody_sees_it(trained, monkeypatch, norm, eps):
    """One query after the other gives the same pictures, the same numbers of queries, and runs the network more often.

    More queries than random numbers are drawn at a time, so that they are drawn again.
    """
    model, x, y = trained
    x, y = x[:6], y[:6]
    call = f"square(queries=450, norm={norm})"
    ahead, few = passes_of(model, call, x, y, eps)
    monkeypatch.setattr(square_file, "at_once", lambda: 1)
    in_turn, many_ = passes_of(model, call, x, y, eps)
    assert 0 < int(ahead.fooled.sum()) < 6
    torch.testing.assert_close(ahead.x, in_turn.x, rtol=0, atol=1e-6)
    for name in "fooled", "spent", "first":
        assert torch.equal(getattr(ahead, name), getattr(in_turn, name)), name
    assert ahead.queries == in_turn.queries
    assert many_ > 400  # versions in which nothing changed are not run
    assert few < many_ / 2


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.25)])
@pytest.mark.parametrize("part", ["apgd-t", "fab-t"])
def test_classes_go_together_and_nobody_sees_it(trained, monkeypatch, part, norm, eps):
    """Towards one class after the other the same is found; together they run the network less often."""
    model, x, y = trained
    call = f"auto-attack(part={part}, steps=12, norm={norm})"
    together, few = passes_of(model, call, x, y, eps)
    monkeypatch.setattr(rival_classes, "at_once", lambda *, backward: 1)
    in_turn, many_ = passes_of(model, call, x, y, eps)
    assert 4 < int(together.fooled.sum()) < 20
    assert torch.equal(together.fooled, in_turn.fooled)
    torch.testing.assert_close(together.x, in_turn.x, rtol=0, atol=1e-6)
    assert few < many_ - 20  # two groups of 13 passes, the first class and the three others, in place of four


def test_attacks_earlier_on_the_same_picture_end_those_after_them():
    of = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    rows = torch.tensor([0, 1, 3, 4, 5, 6])  # the first on picture 2 has left already
    met = torch.tensor([False, True, True, False, False, False])
    assert leave_later(of, 3, rows, met).tolist() == [False, True, True, True, False, True]


def test_no_slope_is_asked_for_that_no_step_uses(plane):
    """Of 8 steps 8 passes back, for every attack of APGD, though 9 points are looked at."""
    model, x, y, smallest = plane
    eps = 0.5 * float(smallest["linf"].min())
    for call in "apgd-ce(steps=8)", "apgd-dlr(steps=8)", "auto-attack(part=apgd-t, steps=8)":
        found = attack(model, x, y, call, eps=eps)
        assert found.backwards == 8, call
        assert not found.fooled.any()


def test_square_stops_where_the_goal_is_met_and_scales_its_schedule(trained):
    model, x, y = trained
    a, b = (attack(model, x, y, f"square(queries=60, rescale={r})", eps=0.08) for r in ("true", "false"))
    assert 0 < int(a.fooled.sum()) < len(x)
    assert torch.equal(a.spent, torch.where(a.fooled, a.first, 60))
    assert not torch.equal(a.x, b.x)


def test_squares_are_as_large_as_the_schedule_says(monkeypatch):
    """One query after the other about a network that always answers alike, also where numbers are drawn again."""
    model, x = linear([[0.0] * 100] * 2, [1.0, 0.0]), torch.full((1, 1, 10, 10), 0.5)
    sizes: list[int] = []
    compare = square_file.is_changed
    monkeypatch.setattr(square_file, "WASTE", 0)
    monkeypatch.setattr(square_file, "is_changed", lambda a, b: sizes.append(b.shape[2]) or compare(a, b))
    attack(model, x, torch.tensor([0]), "square(queries=130)", eps=0.1)
    sides = [square_sides(x.shape[2:], 0.8 / 2**h, "linf") for h in halvings(torch.arange(129), 130).tolist()]
    assert sizes == [down * across for down, across in sides]


def test_square_l2_uses_the_whole_budget(trained):
    model, x, y = trained
    for queries in 1, 50:
        a = attack(model, x, y, f"square(queries={queries}, norm=l2)", eps=0.3)
        assert (a.distance > 0.25).all()


def test_square_brings_the_goal_nearer_with_every_accepted_query(trained):
    model, x, y = trained
    for norm, eps in ("linf", 0.05), ("l2", 0.4):
        calls = [f"square(queries={q}, norm={norm})" for q in (1, 30, 100)]
        margin = [Misclassify(y).margin(outputs(model, attack(model, x, y, c, eps=eps).x)).mean() for c in calls]
        assert margin[1] < 0.8 * margin[0]
        assert margin[2] < margin[1]


class Coarse(nn.Module):
    """What it is given is rounded to eight levels: the gradient is 0 everywhere."""

    def __init__(self, net: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x * 8).round() / 8
        return self.scale * self.net(x + (rounded - x).detach() - (x - x.detach()))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_and_auto_attack_break_what_hides_its_gradients(trained, norm):
    model, x, y = trained
    masked = Classifier(Coarse(model.net), model.preprocess, model.labels)
    known = outputs(masked, x).argmax(1) == y
    x, y = x[known], y[known]
    eps = 0.2 if norm == "linf" else 1.5
    blind = attack(masked, x, y, f"pgd(steps=40, norm={norm})", eps=eps)
    square = attack(masked, x, y, f"square(queries=400, norm={norm})", eps=eps)
    whole = attack(masked, x, y, f"auto-attack(steps=10, classes=2, queries=400, norm={norm})", eps=eps)
    assert blind.fooled.float().mean() < 0.3
    assert square.fooled.float().mean() > 0.9
    assert whole.fooled.float().mean() > 0.9


class Unseen(nn.Module):
    """No gradient at all: what comes in passes through something without a way back, or all runs under no_grad."""

    def __init__(self, net: nn.Module, whole: bool) -> None:
        super().__init__()
        self.net, self.whole = net, whole

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.whole):
            return self.net(((x * 8).round() / 8).detach())


@pytest.mark.filterwarnings("ignore::clearsight.errors.Notice")  # a Notice, made an error, is no refusal
@pytest.mark.parametrize("whole", with_slow([False, True], True), ids=["a detached input", "all under no_grad"])
def test_auto_attack_goes_on_with_square_where_no_gradient_flows(trained, whole):
    """It comes to what Square comes to, and says that the others had nothing to go by; one of them alone is refused."""
    model, x, y = trained
    masked = Classifier(Unseen(model.net, whole), model.preprocess, model.labels)
    known = outputs(masked, x).argmax(1) == y
    x, y = x[known], y[known]
    small = "steps=10, classes=2, queries=400"
    with pytest.warns(Notice, match="no gradient flows back to the pixels.*Square alone") as said:
        found = attack(masked, x, y, f"auto-attack({small})", eps=0.2)
    assert len({str(w.message) for w in said}) == 1
    alone = attack(masked, x, y, f"auto-attack(part=square, {small})", eps=0.2)
    assert torch.equal(found.x, alone.x)
    assert found.fooled.float().mean() > 0.9
    for part in "apgd-ce", "apgd-t", "fab-t":
        with pytest.raises(NoGradient, match="no gradient flows back"):
            attack(masked, x, y, f"auto-attack(part={part}, {small})", eps=0.2)


def test_an_attack_without_gradients_is_told_of_those_that_need_none(trained):
    """What helps an explainer, another layer or occlusion, is no help here; and the other way round."""
    model, x, y = trained
    masked = Classifier(Unseen(model.net, False), model.preprocess, model.labels)
    for call in "fgsm", "pgd", "fab", "deepfool", "carlini-wagner", "apgd-dlr", "universal":
        with pytest.raises(NoGradient, match=r"no_grad.*square or hop-skip-jump") as refused:
            attack(masked, x, y, call, eps=0.2)
        assert "layer=" not in str(refused.value)
        assert "occlusion" not in str(refused.value)
    with pytest.raises(NoGradient, match=r"layer=.*occlusion") as refused:
        explain(masked, x, "saliency")
    assert "square" not in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)  # also from another process


def test_large_logits_hide_nothing(trained):
    """The cross-entropy in float32 is 0, and so is its gradient; none of these attacks is stopped by it."""
    model, x, y = trained
    loud = Classifier(nn.Sequential(model.net, Scaled(1e4)), model.preprocess, model.labels)
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(loud(z), y, reduction="sum"), z)
    assert (g.flatten(1).abs().amax(1) == 0).float().mean() > 0.8
    for name in "apgd-ce(steps=20)", "apgd-dlr(steps=20)", "square(queries=400)", "auto-attack(steps=20, queries=200)":
        plain, found = (attack(m, x, y, name, eps=0.15).fooled for m in (model, loud))
        assert found.sum() >= plain.sum() - 1
        assert found.float().mean() > 0.8


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * x


# --- AutoAttack -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_auto_attack_is_the_union_of_its_parts(trained, norm):
    """Picture by picture, with the same seed: a part finds among the others what it finds alone."""
    model, x, y = trained
    eps = 0.05 if norm == "linf" else 0.4
    small = f"steps=10, classes=3, queries=100, norm={norm}"
    whole = attack(model, x, y, f"auto-attack({small})", eps=eps)
    parts = [attack(model, x, y, f"auto-attack(part={p}, {small})", eps=eps) for p in PARTS]
    union = torch.stack([p.fooled for p in parts]).any(0)
    assert torch.equal(whole.fooled, union)
    assert 0 < int(union.sum()) < len(x)
    first = parts[0]
    torch.testing.assert_close(whole.x[first.fooled], first.x[first.fooled])
    assert max(int(p.fooled.sum()) for p in parts) <= int(union.sum())


PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")


def test_each_part_is_given_what_the_others_left(plane):
    """Passes of a picture that the first part fools at once: nothing is spent on it by the others."""
    model, x, y, smallest = plane
    eps = float(smallest["linf"].max()) * 1.5
    found = attack(model, x, y, "auto-attack", eps=eps)
    assert found.fooled.all()
    assert found.queries < 6
    none = attack(model, x, y, "auto-attack(queries=30, steps=4)", eps=float(smallest["linf"].min()) * 0.5)
    assert not none.fooled.any()
    fab = 1 + 2 * 4 + 2 + 3  # the look at the classes, two at each step, and the search at what is too far away
    assert none.queries == (4 + 1) + (1 + 4 + 1) + fab + 30 + 4  # and one after each part


def test_apgd_t_finds_what_lies_behind_the_likeliest_class():
    """Towards the second class there is a wall; the third is near, and only the look at each class finds it."""
    torch.manual_seed(0)

    class Wall(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x[:, 0, 0, 0] - 0.5, x[:, 0, 0, 1:].mean(1) - 0.5
            second = torch.where(a < 0.15, 5 * a, 0.75 - (a - 0.15)) + 0.2
            third = torch.where(b > 0.15, 40 * (b - 0.15), 0.2 * b) - 0.9
            rest = torch.zeros_like(a) - 4
            return torch.stack([torch.ones_like(a), second, third, rest, rest - 1], 1)

    model = Classifier(Wall(), Preprocess((1, 3), (0.0,), (1.0,)), tuple("abcde"))
    x, y = torch.full((4, 1, 1, 3), 0.5), torch.zeros(4, dtype=torch.long)
    x -= torch.linspace(0, 0.001, 4).view(-1, 1, 1, 1)
    one, each = (attack(model, x, y, f"auto-attack(part=apgd-t, classes={n})", eps=0.2) for n in (1, 4))
    assert not one.fooled.any()
    assert each.fooled.all()
    with rng.seeded(0, x):
        found = towards_each(model, x, Misclassify(y), eps=0.2, steps=50, classes=4, norm="linf")
    assert (outputs(model, found).argmax(1) == 2).all()


@pytest.mark.parametrize(
    "call",
    [
        "apgd-ce(steps=20)",
        "apgd-dlr(steps=20, restarts=2, norm=l2)",
        "fab(steps=10, restarts=2)",
        "square(queries=50, norm=l2)",
        "auto-attack(steps=8, queries=60, classes=3)",
    ],
)
def test_neighbours_do_not_show(trained, call):
    model, x, y = trained
    x, y = x[:7], y[:7]
    eps = 0.6 if "l2" in call else 0.06
    whole = attack(model, x, y, call, eps=eps, batch=16)
    for batch in 1, 3:
        other = attack(model, x, y, call, eps=eps, batch=batch)
        assert torch.equal(other.fooled, whole.fooled)
        torch.testing.assert_close(other.x, whole.x, rtol=0, atol=1e-5)
    order = torch.randperm(7, generator=seeded(0))
    torch.testing.assert_close(attack(model, x[order], y[order], call, eps=eps).x, whole.x[order], rtol=0, atol=1e-5)


def test_square_in_auto_attack_keeps_the_budget(trained):
    model, x, y = trained
    for norm, eps in ("linf", 0.03), ("l2", 0.2):
        a = attack(model, x, y, f"auto-attack(part=square, queries=40, norm={norm})", eps=eps)
        assert a.queries <= 41
        assert a.overstep < 1e-6
        assert float(perturbation_norm(a.x - x, norm).max()) <= eps + 1e-6
