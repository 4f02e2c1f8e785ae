"""Whether the black-box attacks find what there is to find: closed forms on linear models, and replicas."""

import importlib
import itertools
import math

import pytest
import scipy.fft
import torch
from torch import Tensor, nn

from clearsight.attacks import hop_skip_jump
from clearsight.attacks.boundary import orthogonal_step
from clearsight.attacks.common import decision_based
from clearsight.attacks.hop_skip_jump import estimate_direction, geometric_step
from clearsight.attacks.simba import basis_directions
from clearsight.core import rng
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, perturbation_norm
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Become, Misclassify
from clearsight.errors import Refused
from clearsight.runner.run import attack
from clearsight.testing import linear
from thinning import with_slow

square_file = importlib.import_module("clearsight.attacks.square")

FREE = float("inf")
DECIDING = ["boundary", "hop-skip-jump(norm=l2)", "hop-skip-jump(norm=linf)"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_queries(name: str, queries: int) -> str:
    return name[:-1] + f", queries={queries})" if "(" in name else f"{name}(queries={queries})"


@pytest.fixture(scope="module")
def separable() -> tuple[Classifier, Tensor, Tensor, dict[Norm, Tensor]]:
    """A linear model of two classes over 20 pixels, pictures, their classes and how far the border is."""
    weight = torch.randn(2, 20, generator=seeded(4)) / 4
    model, x = linear(weight.tolist(), [0.05, 0.0]), torch.rand(6, 1, 1, 20, generator=seeded(5)) * 0.2 + 0.4
    with torch.no_grad():
        logits = model(x)
    margin, w = (logits[:, 0] - logits[:, 1]).abs(), weight[0] - weight[1]
    return model, x, logits.argmax(1), {"l2": margin / w.norm(), "linf": margin / w.abs().sum()}


@pytest.fixture(scope="module")
def striped() -> tuple[Classifier, Tensor, Tensor]:
    """A network that has learned which third of a picture is lit, with twelve pictures and their classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = torch.arange(12) % 3
        x = torch.rand(12, 1, 6, 9) * 0.4
        for i, k in enumerate(y.tolist()):
            x[i, :, :, 3 * k : 3 * k + 3] += 0.3
        net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 54, 3))
        adam = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(50):
            adam.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            adam.step()
        adam.zero_grad()
    return Classifier(net, Preprocess((6, 9), (0.0,), (1.0,)), tuple("abc")), x, y


# --- decisions alone: boundary, hop-skip-jump -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "norm", "queries", "share"),
    [
        ("boundary", "l2", 1000, 1.005),
        ("hop-skip-jump(norm=l2)", "l2", 1000, 1.15),
        pytest.param("hop-skip-jump(norm=l2)", "l2", 3000, 1.03, marks=pytest.mark.slow),
        ("hop-skip-jump(norm=linf)", "linf", 1000, 1.15),
        pytest.param("hop-skip-jump(norm=linf)", "linf", 3000, 1.05, marks=pytest.mark.slow),
    ],
)
def test_deciding_attacks_come_to_the_border_of_a_linear_model(name, norm, queries, share, separable):
    model, x, y, smallest = separable
    for goal in Misclassify(y), Become(1 - y):
        a = attack(model, x, goal, with_queries(name, queries), eps=FREE)
        assert a.fooled.all()
        assert a.spent.max() <= queries
        ratio = a.distance / smallest[norm]
        assert ratio.min() > 1 - 1e-5
        assert ratio.max() < share


@pytest.mark.parametrize("name", with_slow(DECIDING, "boundary"))
def test_what_is_found_at_the_border_is_found_again_in_another_batch(name):
    """However near the attack comes to it: sums of 40 values are rounded otherwise there."""
    model = linear(torch.randn(2, 40, generator=seeded(2)).tolist())
    x = torch.rand(24, 1, 1, 40, generator=seeded(0)).round()[[0, 1, 2, 9, 10]]
    with torch.no_grad():
        y = model(x).argmax(1)
        a = attack(model, x, y, with_queries(name, 3000 if name == "boundary" else 600), eps=FREE)
        assert a.fooled.all()
        for batch in 1, 2, 3:
            assert (torch.cat([model(part) for part in a.x.split(batch)]).argmax(1) != y).all()


@pytest.mark.parametrize("name", DECIDING)
@pytest.mark.slow
def test_more_queries_are_never_worse(name, separable, striped):
    for model, x, y in (separable[:3], striped):
        budgets = [1, 10, 40, 100, 250, 400]
        found = [attack(model, x, y, with_queries(name, n), eps=FREE) for n in budgets]
        away = torch.stack([torch.where(a.fooled, a.distance, FREE) for a in found])
        assert (away[1:] <= away[:-1] + 1e-6).all()
        assert (away[-1] < away[1] * 0.9).all()


def test_hop_skip_jump_feels_out_where_the_goal_lies(striped):
    """Equation 12, and 16 with its baseline, over the points that were asked about."""
    model, x, y = striped
    other = x.roll(1, 0)
    box = BlackBox(model, x, Misclassify(y), eps=FREE, norm="l2", queries=500, access="label")
    asked: list[Tensor] = []
    handle = model.net.register_forward_hook(lambda _m, args, _out: asked.append(args[0]))
    with rng.seeded(0, x):
        z = decision_based.nearer(box, x, other, torch.arange(12), "l2", 1e-4)
        asked.clear()
        found = estimate_direction(box, x[2], z[2], torch.tensor(2), 200)
    handle.remove()
    points = torch.cat(asked)
    assert len(points) == 200
    with torch.no_grad():
        phi = torch.where(model(points).argmax(1) == y[2], -1.0, 1.0)
    assert 20 < (phi > 0).sum() < 180
    u = points - z[2]
    radius = float((z[2] - x[2]).norm()) / 54**0.5
    inside = ((points > 0) & (points < 1)).flatten(1).all(1)
    torch.testing.assert_close(u[inside].flatten(1).norm(dim=1), torch.full((int(inside.sum()),), radius))
    wanted = ((phi - phi.mean()).view(-1, 1, 1, 1) * u).sum(0)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    edge = z[2:3].clone().requires_grad_()
    (normal,) = torch.autograd.grad(Misclassify(y[2:3]).loss(model(edge)).sum(), edge)
    assert nn.functional.cosine_similarity(found.flatten(), -normal.flatten(), dim=0) > 0.8


def test_hop_skip_jump_takes_the_mean_where_all_points_are_on_one_side():
    for bias, sign in ((9.0, 1.0), (-9.0, -1.0)):
        model = linear([[0.0] * 4, [1.0, 0.0, 0.0, 0.0]], [0.0, bias])
        x, z = torch.full((1, 1, 1, 4), 0.5), torch.full((1, 1, 1, 4), 0.6)
        box = BlackBox(model, x, Misclassify(torch.tensor([0])), eps=FREE)
        seen: list[Tensor] = []
        model.net.register_forward_hook(lambda _m, args, _out, seen=seen: seen.append(args[0]))
        with rng.seeded(0, x):
            found = estimate_direction(box, x[0], z[0], torch.tensor(0), 40)
        torch.testing.assert_close(found, sign * (torch.cat(seen) - z).sum(0))


def test_hop_skip_jump_halves_a_step_until_it_meets_the_goal():
    """From 0.5 by 0.4 over the root of 4: 0.2 and 0.1 lead out of the band from 0.45 to 0.56, 0.05 does not."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    net[1].weight.data, net[1].bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.505, 0.505])
    net[3].weight.data, net[3].bias.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([-0.055, 0.0])
    model = Classifier(net, Preprocess((1, 1), (0.0,), (1.0,)), ("far", "near"))
    x, z = torch.full((1, 1, 1, 1), 0.9), torch.full((1, 1, 1, 1), 0.5)
    box = BlackBox(model, x, Misclassify(torch.tensor([0])), eps=FREE)
    moved = geometric_step(box, x, z, torch.tensor([0]), torch.ones(1, 1, 1, 1), "linf", 4)
    assert moved.tolist() == [0]
    assert float(z) == pytest.approx(0.55)
    assert box.used.tolist() == [3]


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deciding_attacks_halve_the_way_back_to_the_tolerance(norm, separable):
    model, x, y, _ = separable
    with torch.no_grad():
        w = (model.net[1].weight[1] - model.net[1].weight[0]).sign().view(1, 1, 1, 20)
    z = (x + 0.5 * torch.where(y.view(-1, 1, 1, 1) == 0, w, -w) * torch.linspace(0.4, 1, 20)).clamp(0, 1)
    box = BlackBox(model, x, Misclassify(y), eps=FREE, norm=norm, queries=100)
    near = decision_based.nearer(box, x, z, torch.arange(1, 6), norm, 0.01)
    assert torch.equal(near[0], z[0])
    assert box.used.tolist() == [0, 7, 7, 7, 7, 7]  # 2 ** -7 is the first below 0.01
    far, here = perturbation_norm(z - x, norm)[1:], perturbation_norm(near - x, norm)[1:]
    with torch.no_grad():
        assert (model(near[1:]).argmax(1) != y[1:]).all()
        for i in range(5):
            limit = here[i] - 0.01 * far[i]
            move = z[i + 1] - x[i + 1]
            less = move.clamp(-limit, limit) if norm == "linf" else move * limit / far[i]
            assert model((x[i + 1] + less)[None]).argmax() == y[i + 1]


def test_boundary_steps_go_round_the_picture():
    x = torch.rand(40, 3, 5, 4, generator=seeded(0)) * 0.2 + 0.4
    z = x + 0.1 * torch.randn(x.shape, generator=seeded(1)).clamp(-2, 2)
    share = torch.linspace(0.01, 0.3, 40)
    with rng.seeded(0, x):
        found = orthogonal_step(x, z, share, torch.arange(40))
    far = (z - x).flatten(1).norm(dim=1)
    torch.testing.assert_close((found - x).flatten(1).norm(dim=1), far)
    angle = torch.nn.functional.cosine_similarity((z - x).flatten(1), (found - x).flatten(1)).acos()
    torch.testing.assert_close(angle, share.atan(), rtol=1e-2, atol=1e-3)


def test_deciding_attacks_find_starts_for_rare_classes(striped):
    """Every class from every picture, and of the sixteen corners of a cube of four pixels only one has class 1."""
    model, x, y = striped
    for k in range(1, 3):
        for name in DECIDING:
            assert attack(model, x, Become((y + k) % 3), with_queries(name, 100), eps=FREE).fooled.all()
    corner = torch.tensor([[1.0, 0, 1, 1]])
    model = linear([[0.0] * 4, ((corner * 2 - 1)[0]).tolist()], [2.5, 0.0])
    x = torch.full((5, 1, 1, 4), 0.5) + torch.linspace(0, 0.1, 5).view(5, 1, 1, 1)
    found = attack(model, x, torch.zeros(5, dtype=torch.long), "boundary(queries=800)", eps=FREE)
    assert found.fooled.all()
    assert (found.x.flatten(1).round() == corner).all()


@pytest.mark.parametrize("name", DECIDING)
def test_deciding_attacks_leave_a_picture_without_a_start_and_the_others_do_not_mind(name):
    """Class 2 is never the answer."""
    model = linear([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]], [0.0, 0.0, -1.0])
    x = torch.tensor([[0.9, 0.3], [0.8, 0.2], [0.7, 0.2]]).view(3, 1, 1, 2)
    goal = Become(torch.tensor([1, 2, 1]))
    a = attack(model, x, goal, with_queries(name, 200), eps=FREE)
    assert a.fooled.tolist() == [True, False, True]
    assert torch.equal(a.x[1], x[1])
    alone = attack(model, x[[0, 2]], goal[torch.tensor([0, 2])], with_queries(name, 200), eps=FREE)
    torch.testing.assert_close(alone.x, a.x[[0, 2]])
    assert a.spent[1] == 100  # half of the queries go into the search for a start


def test_deciding_attacks_begin_at_the_nearest_of_the_given_pictures_that_does_it():
    """Only a corner that patterns hardly ever hit has class 1; of two pictures in it the nearer one is asked first."""
    corner = torch.arange(20).remainder(2).float().view(1, 1, 1, 20)
    model = linear([[0.0] * 20, (corner * 2 - 1).flatten().tolist()], [9.0, 0.0])
    x = torch.full((3, 1, 1, 20), 0.5) + torch.linspace(0, 0.1, 3).view(3, 1, 1, 1)
    starts = torch.cat([torch.full_like(corner, 0.5), corner, corner * 0.96 + 0.02])
    y = torch.zeros(3, dtype=torch.long)
    box = BlackBox(model, x, Misclassify(y), eps=FREE, queries=10)
    z, rows = decision_based.start(box, x, starts)
    assert torch.equal(z, starts[[2, 2, 2]])
    assert rows.tolist() == [0, 1, 2]
    assert box.used.tolist() == [2, 2, 2]  # what is nearest of all has class 0
    for name in DECIDING:
        assert not attack(model, x, y, with_queries(name, 40), eps=FREE).fooled.any()
        a = attack(model, x, y, with_queries(name, 40), eps=FREE, starts=starts)
        assert a.fooled.all()
        alone = attack(model, x[1:2], y[:1], with_queries(name, 40), eps=FREE, starts=starts)
        torch.testing.assert_close(alone.x[0], a.x[1])
    with pytest.raises(Refused, match="not in"):
        attack(model, x, y, "boundary", eps=FREE, starts=starts * 3)
    with pytest.raises(Refused, match="starts from the picture itself"):
        attack(model, x, y, "pgd", starts=starts)


class Masked(nn.Module):
    """A twin that answers the same, and whose gradients say nothing."""

    def __init__(self, net: nn.Module, how: str) -> None:
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "input":
            return self.net((x * 7).round() / 7)  # eight levels
        out = self.net(x)
        return out * 1e4 if self.how == "scaled" else (out * 4).round() / 4


@pytest.mark.parametrize("name", DECIDING)
def test_deciding_attacks_cut_what_is_too_far_to_the_budget(name, separable):
    """It fools nobody, but it is the way to the nearest that was found."""
    model, x, y, smallest = separable
    free = attack(model, x, y, with_queries(name, 300), eps=FREE)
    eps = float(smallest[free.norm].min()) / 2
    a = attack(model, x, y, with_queries(name, 300), eps=eps)
    assert not a.fooled.any()
    assert not a.first.any()
    torch.testing.assert_close(a.distance, torch.full((6,), eps))
    way = nn.functional.cosine_similarity((a.x - x).flatten(1), (free.x - x).flatten(1))
    assert (way > (0.99 if free.norm == "l2" else 0.8)).all()


def test_hop_skip_jump_asks_more_in_later_rounds(separable, monkeypatch):
    model, x, y, _ = separable
    asked: list[int] = []

    def counted(box: BlackBox, x: Tensor, z: Tensor, row: Tensor, count: int) -> Tensor:
        asked.append(count)
        return estimate_direction(box, x, z, row, count)

    monkeypatch.setattr(hop_skip_jump, "estimate_direction", counted)
    attack(model, x[:1], y[:1], "hop-skip-jump(queries=400, evaluations=60)", eps=FREE)
    assert asked == [60, 85, 104]  # 60 times the roots of 1, 2, 3


@pytest.mark.parametrize(("how", "share"), [("scaled", 1.1), ("output", 1.3), ("input", 3.0)])
@pytest.mark.slow
def test_deciding_attacks_break_masked_twins(how, share, striped):
    """Where pgd finds nothing, and by little more than without the mask; eight levels need longer steps."""
    plain, x, _ = striped
    model = Classifier(Masked(plain.net, how), plain.preprocess, plain.labels)
    with torch.no_grad():
        y = model(x).argmax(1)
    if how != "scaled":  # the loss of a goal stands that
        assert not attack(model, x, y, "pgd", eps=1.0).fooled.any()
    for name in DECIDING:
        there, here = (attack(m, x, y, with_queries(name, 300), eps=FREE) for m in (model, plain))
        assert there.fooled.all()
        assert there.distance.median() < share * here.distance.median()


# --- scores: simba ----------------------------------------------------------------------------------------------------


def test_simba_takes_the_coordinates_that_help_and_no_others():
    """One query for the picture; one for each weight below 0, where the first way helps, and two for all others."""
    weight = torch.randn(24, generator=seeded(0))
    weight[3:9] = 0
    model = linear([weight.tolist(), [0.0] * 24], [99.0, 0.0])
    x = torch.rand(4, 1, 1, 24, generator=seeded(1)) * 0.5 + 0.25
    queries = 1 + int((weight < 0).sum()) + 2 * int((weight >= 0).sum())
    y = torch.zeros(4, dtype=torch.long)
    a = attack(model, x, y, f"simba(basis=pixel, step=0.05, queries={queries})", eps=9)
    torch.testing.assert_close(a.x, x - 0.05 * weight.sign().view(1, 1, 1, 24))
    assert (a.spent == queries).all()
    assert not a.fooled.any()
    again = attack(model, x, y, f"simba(basis=pixel, step=0.05, queries={2 * queries - 1})", eps=9)
    torch.testing.assert_close(again.x, x - 0.1 * weight.sign().view(1, 1, 1, 24))  # each had its turn once more


def test_simba_takes_its_directions_in_an_order_of_each_pictures_own():
    model = linear([[-1.0] * 200, [0.0] * 200], [999.0, 0.0])
    x = torch.rand(8, 1, 1, 200, generator=seeded(1)) * 0.5 + 0.25
    a = attack(model, x, torch.zeros(8, dtype=torch.long), "simba(basis=pixel, queries=2)", eps=1)
    moved = (a.x != x).flatten(1)
    assert (moved.sum(1) == 1).all()
    assert len(moved.long().argmax(1).unique()) > 5
    torch.testing.assert_close(a.distance, torch.full((8,), 0.2))


def test_simba_takes_another_order_in_each_round():
    model = linear([[-1.0] * 30, [0.0] * 30], [999.0, 0.0])
    seen: list[Tensor] = []
    x = torch.full((1, 1, 1, 30), 0.5)
    model.net.register_forward_hook(lambda _m, args, _out: seen.append(args[0].flatten().clone()))
    attack(model, x, torch.tensor([0]), "simba(basis=pixel, step=0.01, queries=61)", eps=1)
    seen = seen[-62:-1]  # the picture, and then one step after another; the last is the runner's own look
    moved = [int((b - a).abs().argmax()) for a, b in itertools.pairwise(seen)]
    assert sorted(moved[:30]) == sorted(moved[30:]) == list(range(30))
    assert moved[:30] != moved[30:]


@pytest.mark.parametrize(("eps", "step"), [(0.1, 0.1), (1.0, 0.2), (4.0, 0.5)])
def test_simba_takes_longer_steps_in_a_large_budget(eps, step):
    model = linear([[-1.0] * 9, [0.0] * 9], [99.0, 0.0])
    a = attack(model, torch.full((1, 1, 1, 9), 0.4), torch.tensor([0]), "simba(basis=pixel, queries=2)", eps=eps)
    assert float(a.distance) == pytest.approx(step, abs=1e-6)


def test_simba_leaves_out_what_cannot_move():
    """All pixels are 1 already: only the way back is asked about."""
    model = linear([[1.0, 2.0, 3.0], [0.0] * 3], [99.0, 0.0])
    a = attack(model, torch.ones(1, 1, 1, 3), torch.tensor([0]), "simba(basis=pixel, queries=4)", eps=1)
    torch.testing.assert_close(a.x, torch.full((1, 1, 1, 3), 0.8))
    assert a.spent.item() == 4
    nothing = attack(model, torch.ones(1, 1, 1, 3), torch.tensor([0]), "simba(basis=pixel)", eps=0)
    assert nothing.spent.item() == 1


@pytest.mark.slow
def test_simba_keeps_its_budget_and_goes_on_inside():
    """At most the share that the ball allows; along it, what weighs more displaces what weighs less."""
    weight = torch.linspace(0.1, 1, 10)
    model, x = linear([weight.tolist(), [0.0] * 10], [99.0, 0.0]), torch.full((1, 1, 1, 10), 0.5)
    a = attack(model, x, torch.tensor([0]), "simba(basis=pixel, step=0.02, queries=1500)", eps=0.3)
    assert a.overstep < 1e-6
    assert float(a.distance) == pytest.approx(0.3, abs=1e-5)
    assert nn.functional.cosine_similarity((x - a.x).flatten(), weight, dim=0) > 0.98


@pytest.mark.parametrize("shape", [(2, 9), (1, 4, 6), (2, 3, 4, 5)])
def test_simba_cosines_are_those_of_scipy(shape):
    x = torch.zeros(1, *shape)
    n = math.prod(shape)
    found = basis_directions(torch.arange(n), list(shape), x, "dct")
    unit = torch.eye(n).view(n, *shape).numpy()
    wanted = torch.from_numpy(scipy.fft.idctn(unit, axes=range(2, len(shape) + 1), norm="ortho"))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(basis_directions(torch.arange(n), list(shape), x, "pixel"), torch.eye(n).view(n, *shape))


def test_simba_in_cosines_moves_along_low_frequencies():
    """A model that weighs one cosine of a picture is changed along it alone."""
    wave = basis_directions(torch.tensor([5]), [1, 8], torch.zeros(1, 1, 64), "dct")[0]
    model = linear([(3 * wave).flatten().tolist(), [0.0] * 64], [99.0, 0.0])
    x = torch.rand(3, 1, 1, 64, generator=seeded(0)) * 0.4 + 0.3
    x = torch.cat([x, 1 - x])

    class Line(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (model.net(z) * 1000).round() / 1000  # what changes by rounding alone is no change

    line = Classifier(Line(), Preprocess((64,), (0.0,), (1.0,)), ("a", "b"))
    y = torch.zeros(6, dtype=torch.long)
    a = attack(line, x[:, :, 0], y, "simba(queries=17, step=0.3)", eps=9)
    torch.testing.assert_close(a.x, x[:, :, 0] - 0.3 * wave)
    fine = basis_directions(torch.tensor([50]), [1, 64], torch.zeros(1, 1, 64), "dct")[0]
    model.net[1].weight.data[0] = 3 * fine.flatten()
    torch.testing.assert_close(attack(line, x[:, :, 0], y, "simba(queries=40)", eps=1).x, x[:, :, 0])
    assert (attack(line, x[:, :, 0], y, "simba(queries=129, low=1)", eps=1).x != x[:, :, 0]).flatten(1).any(1).all()


def test_simba_stops_where_the_goal_is_met(striped):
    a = attack(*striped, "simba(queries=400)", eps=2.5)
    assert a.fooled.float().mean() > 0.5
    assert torch.equal(a.spent[a.fooled], a.first[a.fooled])
    assert (a.spent[a.fooled] < 400).all()
    assert (a.spent[~a.fooled] == 400).all()


def test_simba_refuses_what_cannot_be(striped):
    for options in "step=0", "low=0", "low=1.5":
        with pytest.raises(Refused, match="step must be above 0"):
            attack(*striped, f"simba({options})", eps=1)


# --- transfer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["fgsm", "pgd", "pgd(steps=5, early_stop=false)", "pgd(norm=l2)"])
def test_transfer_to_the_same_model_is_the_inner_attack(inner, striped):
    model, x, y = striped
    norm = "l2" if "l2" in inner else "linf"
    eps = 0.3 if norm == "linf" else 1.5
    for goal in Misclassify(y), Become((y + 1) % 3):
        alone = attack(model, x, goal, inner, eps=eps)
        a = attack(model, x, goal, f"transfer(inner={inner}, norm={norm})", eps=eps, other=model)
        torch.testing.assert_close(a.x, alone.x)
        assert torch.equal(a.fooled, alone.fooled)
        assert torch.equal(a.first, alone.fooled.long())
        assert (a.spent == 1).all()
        assert a.fooled.any()


def test_transfer_sees_the_other_model_and_not_this_one(striped):
    """To a model whose weights are turned round, every step is a step away."""
    w = torch.randn(20, generator=seeded(0))
    model, other = (linear([(k * w).tolist(), (-k * w).tolist()]) for k in (1.0, -1.0))
    x = torch.rand(6, 1, 1, 20, generator=seeded(1)) * 0.2 + 0.4
    with torch.no_grad():
        y = model(x).argmax(1)
    a = attack(model, x, y, "transfer(inner=fgsm)", eps=0.1, other=other)
    towards = torch.where(y.view(-1, 1, 1, 1) == 0, w, -w).sign()
    torch.testing.assert_close(a.x, x + 0.1 * towards)
    assert not a.fooled.any()
    assert a.backwards == 0


def test_transfer_hands_its_norm_on(striped):
    model, x, y = striped
    a = attack(model, x, y, "transfer(norm=l2)", eps=0.9, other=model)
    torch.testing.assert_close(a.x, attack(model, x, y, "pgd(early_stop=false, norm=l2)", eps=0.9).x)
    assert a.norm == "l2"


ONLY = """
from clearsight.core.catalogue import method

@method(paper="control", claims="linf")
def only(model, x, goal, *, eps: float):
    return x

@method(paper="control", claims="unbounded linf")
def free(model, x, goal, *, eps: float):
    return x
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("inner=./only.py:only, norm=l2", "has a budget in linf: give norm=linf to transfer too"),
        ("inner=./only.py:free", "inner must be a white-box attack with a budget"),
        ("inner=pgd(norm=l2)", "norm=l2 to transfer"),
        ("inner=transfer", "inner must be a white-box attack"),
        ("inner=simba, norm=l2", "inner must be a white-box attack"),
        ("inner=pgd(eps=0.1)", "give eps there"),
        ("inner=banana", "banana"),
    ],
)
def test_transfer_refuses_what_cannot_be(options, words, striped, tmp_path, monkeypatch):
    model, x, y = striped
    (tmp_path / "only.py").write_text(ONLY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=words):
        attack(model, x, y, f"transfer({options})", eps=0.1, other=model)


@pytest.mark.parametrize(
    ("size", "labels", "words"),
    [
        ((6, 9), "abcd", "4 classes, but the attacked model 3"),
        ((6, 9), "cba", "class 0 of the model other is 'c', of the attacked model 'a'.*same order"),
        ((6, 9), "acb", "class 1 of the model other is 'c', of the attacked model 'b'.*same order"),
        ((9, 9), "abc", r"other takes \(1, 9, 9\), not pictures of \(1, 6, 9\)"),
    ],
)
def test_transfer_wants_the_same_classes_and_pictures(size, labels, words, striped):
    model, x, y = striped
    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(size), len(labels)))
    other = Classifier(net, Preprocess(size, (0.0,), (1.0,)), tuple(labels))
    with pytest.raises(Refused, match=words):
        attack(model, x, y, "transfer", eps=0.1, other=other)


def test_transfer_takes_another_size_where_the_other_network_does(striped):
    """One that averages over the picture, and was made for larger ones."""
    model, x, y = striped
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    other = Classifier(net, Preprocess((12, 18), (0.0,), (1.0,)), tuple("abc"))
    a = attack(model, x, y, "transfer(inner=fgsm)", eps=0.1, other=other)
    torch.testing.assert_close(a.distance, torch.full((12,), 0.1))


def test_transfer_asks_again_only_where_there_is_something_new(striped):
    model, x, y = striped
    eps = 0.12
    same = attack(model, x, y, "transfer(queries=20)", eps=eps, other=model)
    assert (same.spent == 1).all()
    call = "transfer(inner=pgd(steps=0, restarts=2, early_stop=false), queries={})"
    many = [attack(model, x, y, call.format(n), eps=0.5, other=model) for n in (1, 12)]
    assert (many[0].spent == 1).all()
    assert many[1].spent.max() > 1
    assert torch.equal(many[1].spent[many[1].fooled], many[1].first[many[1].fooled])


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, m in catalogue("attacks").items() if "black-box" in m.claims])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_first_is_the_query_that_an_onlooker_counts(monkeypatch, name, at, striped):
    """A hook sees every version and its answer; the first that fools from within eps is the first.

    What is known before is shown to him too, and pictures and queries are the same where it is not.
    """
    model, x, y = striped
    x, y = x[at : at + 1], y[at : at + 1]
    call = f"{name}(queries={1 if name == 'transfer' else 250})"
    norm: Norm = attack(model, x, y, call, eps=1.0, other=model).norm
    eps = 0.3 if norm == "linf" else 1.2
    usual = attack(model, x, y, call, eps=eps, other=model)
    monkeypatch.setattr(square_file, "is_changed", lambda stood, _colour: torch.ones(len(stood), dtype=torch.bool))
    seen: list[tuple[Tensor, Tensor]] = []
    handle = model.net.register_forward_hook(lambda _m, args, out: seen.append((args[0].detach(), out.detach())))
    a = attack(model, x, y, call, eps=eps, other=model)
    handle.remove()
    n = int(a.spent)
    sent, out = (
        torch.cat(parts)[-n - 1 : -1] for parts in zip(*seen, strict=True)
    )  # the last is the runner's own look
    fools = (out.argmax(1) != y) & (perturbation_norm(sent - x, norm) <= eps + 1e-6)
    assert int(a.first) == (int(fools.long().argmax()) + 1 if fools.any() else 0)
    assert (int(usual.first), int(usual.spent)) == (int(a.first), n)
    assert torch.equal(usual.x, a.x)
    assert bool(a.fooled) == bool(fools.any())
    if bool(fools.any()):
        assert float(a.distance) == pytest.approx(float(perturbation_norm(sent - x, norm)[fools].min()), abs=1e-6)
