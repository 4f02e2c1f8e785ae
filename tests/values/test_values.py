"""The numbers: every method against a closed form, or against a slow replica written from its paper."""

import itertools
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.passes import counted
from clearsight.core.preprocess import Preprocess
from clearsight.core.statistics import bootstrap, judge, mcnemar, paired_gap, tails, wilson
from clearsight.core.targets import Become, ClassScore, Margin, Misclassify
from clearsight.errors import Notice, Refused
from clearsight.internals.probe import probed
from clearsight.internals.target_layer import target_layer
from clearsight.perturbation.removal import without
from clearsight.perturbation.removal_order import curve, ranks
from clearsight.runner.run import attack, explain, measure
from clearsight.testing import linear

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(net: nn.Module, size: tuple[int, ...], classes: int, mean=MEAN, std=STD) -> Classifier:
    return Classifier(net, Preprocess(size, mean, std), tuple(map(str, range(classes))))


@pytest.fixture
def plane() -> tuple[Classifier, Tensor]:
    """A linear model of 4 × 5 pictures with normalisation, and its weights (2, 3, 4, 5) per pixel in [0, 1]."""
    weight = torch.randn(2, 3, 4, 5, generator=seeded(0))
    layer = nn.Linear(60, 2)
    layer.weight.data, layer.bias.data = weight.flatten(1), torch.tensor([0.1, -0.2])
    return classifier(nn.Sequential(nn.Flatten(), layer), (4, 5), 2), weight / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def bent() -> Classifier:
    """A smooth network of 8 × 12 pictures whose gradient is different everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * 4 * 6, 3),
        )
    for p in net[5].parameters():
        p.data *= 4
    return classifier(net.eval(), (8, 12), 3)


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(5, 3, 8, 12, generator=seeded(1))


class Curve(nn.Module):
    """Logits of a picture of one pixel, read from a table of (pixel, logits) and straight in between."""

    def __init__(self, *knots: tuple[float, list[float]]) -> None:
        super().__init__()
        self.places = torch.tensor([k for k, _ in knots])
        self.values = torch.tensor([v for _, v in knots])

    def forward(self, x: Tensor) -> Tensor:
        p = x.flatten(1)
        i = (torch.searchsorted(self.places, p.detach() + 1e-4)[:, 0] - 1).clamp(0, len(self.places) - 2)
        part = (p[:, 0] - self.places[i]) / (self.places[i + 1] - self.places[i])
        return self.values[i] + part[:, None] * (self.values[i + 1] - self.values[i])


def one_pixel(*knots: tuple[float, list[float]]) -> Classifier:
    return classifier(Curve(*knots), (1, 1), len(knots[0][1]), (0.0,), (1.0,))


# --- explainers -------------------------------------------------------------------------------------------------------


def test_saliency_of_a_linear_model_is_its_weights(plane):
    model, w = plane
    found = explain(model, torch.rand(2, 3, 4, 5), "saliency", ClassScore([1, 0])).maps
    torch.testing.assert_close(found, w[[1, 0]].abs().amax(1))


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_integrated_gradients_of_a_linear_model_are_weight_times_path(plane, steps, baseline):
    (model, w), x = plane, torch.rand(2, 3, 4, 5, generator=seeded(2))
    found = explain(model, x, f"integrated-gradients(steps={steps}, baseline={baseline})", ClassScore([1, 0])).maps
    torch.testing.assert_close(found, (w[[1, 0]] * (x - baseline)).sum(1))


def test_integrated_gradients_come_closer_to_completeness_with_more_steps(bent, pictures):
    with torch.no_grad():
        gap = (bent(pictures) - bent(torch.zeros_like(pictures)))[:, 2]
    errors = [
        (explain(bent, pictures, f"integrated-gradients(steps={n})", ClassScore(2)).maps.sum((1, 2)) - gap).abs().max()
        for n in (1, 4, 16, 128)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.05
    assert errors[-1] < 0.005


def test_integrated_gradients_replica(bent, pictures):
    """The midpoint rule, one picture and one step at a time."""
    found = explain(bent, pictures, "integrated-gradients(steps=5, baseline=0.2)", ClassScore(1)).maps
    for i, x in enumerate(pictures):
        total = torch.zeros_like(x)
        for k in range(5):
            p = (0.2 + (k + 0.5) / 5 * (x - 0.2)).requires_grad_()
            bent(p[None])[0, 1].backward()
            total += p.grad / 5
        torch.testing.assert_close(found[i], ((x - 0.2) * total).sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fill", [0.2, None])
def test_occlusion_of_a_linear_model_is_weight_times_what_is_covered(plane, fill):
    (model, w), x = plane, torch.rand(2, 3, 4, 5, generator=seeded(2))
    cover = torch.tensor(MEAN).view(3, 1, 1) if fill is None else fill
    call = "occlusion(window=1, stride=1)" if fill is None else f"occlusion(window=1, stride=1, fill={fill})"
    found = explain(model, x, call, ClassScore([1, 0])).maps
    torch.testing.assert_close(found, (w[[1, 0]] * (x - cover)).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("window", "stride"), [(5, 3), (3, 3), (4, 1), (8, 8), (20, 20)])
def test_occlusion_replica(bent, pictures, window, stride):
    found = explain(bent, pictures, f"occlusion(window={window}, stride={stride}, fill=0.1)", ClassScore(0)).maps
    tops, lefts = ([*range(0, max(side - window, 0), stride), max(side - window, 0)] for side in (8, 12))
    for i, x in enumerate(pictures):
        falls = [[[] for _ in range(12)] for _ in range(8)]
        for top in tops:
            for left in lefts:
                covered = x.clone()
                covered[:, top : top + window, left : left + window] = 0.1
                with torch.no_grad():
                    fall = float(bent(x[None])[0, 0] - bent(covered[None])[0, 0])
                for r in range(top, min(top + window, 8)):
                    for c in range(left, min(left + window, 12)):
                        falls[r][c].append(fall)
        wanted = torch.tensor([[sum(f) / len(f) for f in row] for row in falls])
        torch.testing.assert_close(found[i], wanted, rtol=1e-4, atol=1e-5)


def test_occlusion_refuses_gaps(bent, pictures):
    for options in "window=3, stride=4", "window=0", "stride=0":
        with pytest.raises(Refused, match="stride must be from 1 to window"):
            explain(bent, pictures, f"occlusion({options})")


class Averaged(nn.Module):
    """A GAP head: feature maps, their averages, one dense layer."""

    def __init__(self, shrink: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU(), nn.AvgPool2d(shrink))
        self.dense = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.features(x).mean((2, 3)))


@pytest.mark.parametrize("shrink", [1, 2])
def test_grad_cam_behind_a_gap_head_is_cam_and_hires_cam(pictures, shrink):
    """Zhou 2016 and Draelos 2020, the latter from plain autograd; all the same up to 1 / (h w)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Averaged(shrink)
    model = classifier(net, (8, 12), 4)
    found = explain(model, pictures, "grad-cam(layer=features)", ClassScore(3)).maps
    z = (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    a = net.features(z).detach().requires_grad_()
    places = a.shape[2] * a.shape[3]
    (g,) = torch.autograd.grad(net.dense(a.mean((2, 3)))[:, 3].sum(), a)
    cam = torch.einsum("k,bkhw->bhw", net.dense.weight[3], a).relu().detach()
    hires = (g * a).sum(1).relu().detach()
    torch.testing.assert_close(hires, cam / places)
    wanted = F.interpolate(cam[:, None], (8, 12), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found, wanted / places, rtol=1e-4, atol=1e-7)
    assert found.max() > 0


def test_grad_cam_replica(bent, pictures):
    """Equations 1 and 2 of the paper, one picture and one channel at a time, where the gradient is not the same
    everywhere: there Grad-CAM is not HiRes-CAM."""
    net = bent.net
    found = explain(bent, pictures, "grad-cam(layer=1)", ClassScore(2))
    assert found.method == "grad-cam(layer=1)"
    for i, x in enumerate(pictures):
        z = (x[None] - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        a = net[1](net[0](z)).detach().requires_grad_()
        net[2:](a)[0, 2].backward()
        cam = torch.zeros(4, 6)
        for k in range(6):
            alpha = a.grad[0, k].sum() / (4 * 6)
            cam += alpha * a.detach()[0, k]
        low = cam.clamp(min=0)[None, None]
        wanted = F.interpolate(low, (8, 12), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(found.maps[i], wanted, rtol=1e-4, atol=1e-6)
        hires = (a.grad * a.detach())[0].sum(0).clamp(min=0)
        assert np.corrcoef(hires.flatten(), low.flatten())[0, 1] < 0.95


def test_random_maps_are_uniform(small):
    x = torch.rand(50, 3, 16, 24, generator=seeded(0))
    maps = explain(small, x, "random", ClassScore(0)).maps
    assert scipy.stats.kstest(maps.flatten().numpy(), "uniform").pvalue > 0.01
    assert (maps[0] != maps[1]).any()


# --- attacks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def separable() -> tuple[Classifier, Tensor, Tensor, Tensor]:
    """A linear model of two classes, pictures that no small step takes to the border, their classes and the smallest
    eps that fools: |margin| / |w|_1."""
    weight = torch.randn(2, 20, generator=seeded(4)) / 4
    model, x = linear(weight.tolist(), [0.05, 0.0]), torch.rand(6, 1, 1, 20, generator=seeded(5)) * 0.2 + 0.4
    with torch.no_grad():
        logits = model(x)
    margin = (logits[:, 0] - logits[:, 1]).abs()
    return model, x, logits.argmax(1), margin / (weight[0] - weight[1]).abs().sum()


def test_fgsm_on_a_linear_model_goes_to_the_worst_corner(separable):
    model, x, y, _ = separable
    w = model.net[1].weight.detach()
    towards = torch.where(y[:, None] == 0, w[1] - w[0], w[0] - w[1]).sign().view_as(x)
    torch.testing.assert_close(attack(model, x, y, "fgsm", eps=0.07).x, x + 0.07 * towards)
    torch.testing.assert_close(attack(model, x, Become(1 - y), "fgsm", eps=0.07).x, x + 0.07 * towards)
    torch.testing.assert_close(attack(model, x, y, "fgsm", eps=0.9).x, (x + 0.9 * towards).clamp(0, 1))
    torch.testing.assert_close(attack(model, x, y, "pgd(early_stop=false)", eps=0.07).x, x + 0.07 * towards)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "pgd(steps=3)", "pgd(restarts=2, early_stop=false)"])
def test_the_smallest_budget_that_fools_a_linear_model(separable, name):
    model, x, y, smallest = separable
    assert smallest.max() < 0.4
    for i in range(len(x)):
        rows = slice(i, i + 1)
        assert not attack(model, x[rows], y[rows], name, eps=float(smallest[i]) * 0.999).fooled.any()
        assert attack(model, x[rows], y[rows], name, eps=float(smallest[i]) * 1.001).fooled.all()


def test_fgsm_replica(bent, pictures):
    with torch.no_grad():
        y = bent(pictures).argmax(1)
    z = pictures.clone().requires_grad_()
    F.cross_entropy(bent(z), y, reduction="sum").backward()
    wanted = (pictures + 0.03 * z.grad.sign()).clamp(0, 1)
    assert ((attack(bent, pictures, y, "fgsm", eps=0.03).x - wanted).abs() < 1e-6).float().mean() > 0.999


def test_pgd_is_never_weaker_than_fgsm(bent, pictures):
    """Its first iterate with step=eps is FGSM; with its own step it is better here."""
    with torch.no_grad():
        y = bent(pictures).argmax(1)
    loss = {}
    for name in "fgsm", "pgd(steps=4, step=0.1, early_stop=false)", "pgd(early_stop=false)":
        with torch.no_grad():
            loss[name] = Misclassify(y).loss(bent(attack(bent, pictures, y, name, eps=0.1).x))
    fgsm, same_step, own_step = loss.values()
    assert (same_step <= fgsm + 1e-6).all()
    assert (own_step <= fgsm + 1e-6).all()
    assert (own_step < fgsm - 1e-3).any()


def test_pgd_keeps_the_best_iterate():
    """A valley at 0.63: from 0.5 the steps are 0.6, 0.7, 0.6, 0.7, ... and the last is not the best."""
    model = one_pixel((0.0, [7.3, 0.0]), (0.63, [1.0, 0.0]), (1.0, [4.7, 0.0]))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    for steps in 2, 4:
        found = attack(model, x, y, f"pgd(steps={steps}, step=0.1)", eps=0.3)
        assert float(found.x) == pytest.approx(0.6, abs=1e-6)
        assert not found.fooled.any()


def test_pgd_prefers_a_met_goal_to_a_lower_loss():
    """At 0.6 class 1 wins; at 0.7 class 0 is less likely, yet it wins."""
    model = one_pixel((0.5, [1, 0.9, -1]), (0.6, [1, 1.1, -1]), (0.7, [1, 0.95, 0.95]), (1.0, [1, 0.95, 0.95]))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    losses = Misclassify(y.repeat(2)).loss(model(torch.tensor([0.6, 0.7]).view(2, 1, 1, 1)))
    assert losses[1] < losses[0]
    for stop in "true", "false":
        found = attack(model, x, y, f"pgd(steps=2, step=0.1, early_stop={stop})", eps=0.3)
        assert found.fooled.all()
        assert float(found.x) == pytest.approx(0.6, abs=1e-3)


def test_pgd_restarts_find_what_one_start_misses():
    """The slope leads left, to a place that is not wrong; behind a step at 0.6 everything is."""
    model = one_pixel((0.0, [4.0, 0.0]), (0.3, [1.0, 0.0]), (0.6, [4.0, 0.0]), (0.601, [-1.0, 0.0]), (1.0, [-1.1, 0.0]))
    x, y = torch.linspace(0.48, 0.52, 8).view(8, 1, 1, 1), torch.zeros(8, dtype=torch.long)
    assert not attack(model, x, y, "pgd", eps=0.3).fooled.any()
    many = attack(model, x, y, "pgd(restarts=30)", eps=0.3)
    assert many.fooled.all()
    assert ((many.x - x).abs() <= 0.3 + 1e-6).all()
    assert len(many.x.unique()) == 8  # each picture has starts of its own


def test_pgd_starts_all_over_the_cube():
    """Where nothing is better than anything else than by where it is, the first of the random starts is kept."""
    model = one_pixel((0.0, [1.0, 0.0]), (0.499, [1.0, 0.0]), (0.5, [9.0, 0.0]), (0.501, [1.0, 0.0]), (1.0, [1.0, 0.0]))
    x, y = torch.full((200, 1, 1, 1), 0.5), torch.zeros(200, dtype=torch.long)
    x += torch.linspace(-1e-4, 1e-4, 200).view_as(x)
    starts = attack(model, x, y, "pgd(restarts=2, steps=0)", eps=0.2).x.flatten()
    assert scipy.stats.kstest(starts.numpy(), scipy.stats.uniform(0.3, 0.4).cdf).pvalue > 0.01


def test_pgd_early_stop_saves_passes(separable):
    model, x, y, smallest = separable
    eps = float(smallest.max()) * 1.5
    stop, on = (attack(model, x, y, f"pgd(early_stop={s})", eps=eps) for s in ("true", "false"))
    assert stop.fooled.all()
    assert on.fooled.all()
    assert on.queries == 21
    assert stop.queries < 8
    some = float(smallest.median()) * 1.001  # for some of the pictures there is nothing to find: only they start again
    one, three = (attack(model, x, y, f"pgd(restarts={n})", eps=some) for n in (1, 3))
    left = int((~one.fooled).sum())
    assert 0 < left < len(x)
    assert three.queries * len(x) == pytest.approx(one.queries * len(x) + 2 * 21 * left)
    assert (stop.x - x).abs().sum() < (on.x - x).abs().sum()


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "forwards", "backwards"),
    [
        ("saliency", 1, 1),
        ("grad-cam", 1, 1),
        ("integrated-gradients(steps=7)", 9, 7),
        ("occlusion(window=4, stride=4)", 1 + 2 * 3, 0),
        ("random", 0, 0),
    ],
)
def test_passes_of_explainers(bent, pictures, call, forwards, backwards):
    for batch in 16, 2:
        e = explain(bent, pictures, call, ClassScore(0), batch=batch)
        assert (e.forwards, e.backwards) == (forwards, backwards)


@pytest.mark.parametrize(
    ("call", "queries", "backwards"),
    [
        ("fgsm", 1, 1),
        ("pgd(steps=5, early_stop=false)", 6, 5),
        ("pgd(steps=5, restarts=3, early_stop=false)", 18, 15),
    ],
)
def test_passes_of_attacks(bent, pictures, call, queries, backwards):
    with torch.no_grad():
        y = bent(pictures).argmax(1)
    y[0] = (y[0] + 1) % 3  # wrong already: costs nothing
    a = attack(bent, pictures, y, call, eps=1e-6, batch=2)
    assert (a.queries, a.backwards) == (queries, backwards)


# of five pictures; what deletion leaves of each is one and the same picture
@pytest.mark.parametrize(
    ("call", "passes"), [("deletion(steps=6)", 5 * 6 + 1), ("insertion", 5 * 21), ("pointing-game", 0)]
)
def test_passes_of_metrics(bent, pictures, call, passes):
    maps = torch.rand(5, 8, 12)
    with counted(bent.net) as p:
        measure(bent, pictures, maps, call, ClassScore(0), regions=maps > 0.5)
    assert (p.forwards, p.backwards) == (passes, 0)


# --- metrics ----------------------------------------------------------------------------------------------------------


def emptied(x: Tensor, fill: str) -> Tensor:
    if fill == "blur":
        blurred = scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, 1.2, 1.2), mode="nearest", radius=(0, 0, 4, 4))
        return torch.from_numpy(blurred)
    values = torch.tensor(MEAN) if fill == "mean" else torch.zeros(3)
    return values.view(1, 3, 1, 1).expand_as(x)


@pytest.mark.parametrize("fill", ["mean", "black", "blur"])
@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_deletion_and_insertion_replica(bent, pictures, name, fill):
    """A pixel at a time, sorted by hand, with a count of steps that does not divide the number of pixels."""
    maps = torch.randn(5, 8, 12, generator=seeded(3))
    found = measure(bent, pictures, maps, f"{name}(steps=7, fill={fill})", ClassScore(1, of="prob"))
    nothing = emptied(pictures, fill)
    torch.testing.assert_close(without(bent, pictures, fill), nothing, rtol=1e-5, atol=1e-5)
    for i, (x, empty) in enumerate(zip(pictures, nothing, strict=True)):
        order = sorted(((float(maps[i, r, c]), r, c) for r in range(8) for c in range(12)), reverse=True)
        scores = []
        for k in range(8):
            mixed = empty.clone() if name == "insertion" else x.clone()
            for _, r, c in order[: round(k * 96 / 7)]:
                mixed[:, r, c] = x[:, r, c] if name == "insertion" else empty[:, r, c]
            with torch.no_grad():
                scores.append(float(bent(mixed[None]).softmax(1)[0, 1]))
        area = sum((a + b) / 2 for a, b in itertools.pairwise(scores)) / 7
        assert float(found[i]) == pytest.approx(area, abs=1e-5)


@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_deletion_and_insertion_break_ties_by_chance(name):
    """Maps 2, 1, 1, 0 allow two orders, and no other: both occur."""
    model, x = linear([[4.0, 1.0, 2.0, 8.0], [0.0] * 4]), torch.ones(1, 1, 1, 4)
    maps = torch.tensor([[[2.0, 1.0, 1.0, 0.0]]])
    call = f"{name}(steps=4, fill=black)"
    found = {round(float(measure(model, x, maps, call, ClassScore(0), seed=s)), 6) for s in range(30)}
    wanted = set()
    for order in ([4, 1, 2, 8], [4, 2, 1, 8]):
        inside = np.cumsum([0, *order])
        values = inside if name == "insertion" else 15 - inside
        wanted.add(round(float(np.trapezoid(values)) / 4, 6))
    assert found == wanted


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
def test_deletion_and_insertion_take_exact_counts(steps):
    """Also where most of a map is zero: the peers that cut at a percentile take far too many."""
    n = 48
    model, x = linear([[1.0] * n, [0.0] * n]), torch.ones(2, 1, 1, n)
    maps = (torch.rand(2, 1, n, generator=seeded(0)) - 0.6).relu()
    counts = torch.tensor([round(k * n / steps) for k in range(steps + 1)]).float()
    for insert in (False, True):
        with rng.seeded(0, x):
            values = curve(model, x, ClassScore(0), maps, steps=steps, fill="black", insert=insert)
        torch.testing.assert_close(values, (counts if insert else n - counts).expand(2, -1))
    with rng.seeded(0, x):
        rank = ranks(maps)
    assert (rank.flatten(1).sort().values == torch.arange(n)).all()
    assert (maps.flatten(1).gather(1, rank.flatten(1).argsort(1)).diff() <= 0).all()


def boxes(maps: Tensor) -> Tensor:
    regions = torch.zeros(maps.shape, dtype=torch.bool)
    regions[:, 1:3, 2:6] = True
    return regions


def test_relevance_mass_by_hand(small):
    maps = torch.full((4, 16, 24), -1.0)
    maps[0, 1, 2], maps[0, 9, 9] = 3.0, 1.0
    maps[1, 2, 5], maps[2, 3, 5] = 0.5, 0.5
    found = measure(small, torch.rand(4, 3, 16, 24), maps, "relevance-mass", regions=boxes(maps))
    assert found[:3].tolist() == [0.75, 1.0, 0.0]
    assert found[3].isnan()


def test_pointing_game_by_hand(small):
    maps = torch.zeros(4, 16, 24)
    maps[0, 1, 2], maps[1, 3, 5] = 1.0, 1.0
    maps[2, 1, 2], maps[2, 15, 0], maps[2, 0, 0] = 5.0, 5.0, 4.9
    x = torch.rand(4, 3, 16, 24)
    found = measure(small, x, maps, "pointing-game", regions=boxes(maps))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.5, 8 / 384]))
    wider = measure(small, x, maps, "pointing-game(tolerance=1)", regions=boxes(maps))
    torch.testing.assert_close(wider, torch.tensor([1.0, 1.0, 0.5, 24 / 384]))


@pytest.mark.parametrize("name", ["relevance-mass", "pointing-game"])
def test_random_maps_reach_the_chance_level_of_relevance_mass_and_pointing_game(name):
    x = torch.rand(2000, 1, 1, 10, generator=seeded(0))
    model = linear([[0.0] * 10, [1.0] * 10])
    regions = torch.zeros(2000, 1, 10, dtype=torch.bool)
    regions[:, :, 2:5] = True
    maps = explain(model, x, "random", ClassScore(0)).maps
    assert float(measure(model, x, maps, name, ClassScore(0), regions=regions).mean()) == pytest.approx(0.3, abs=0.03)


def test_regions_are_needed_where_they_are_asked_for(small, x):
    maps = torch.rand(4, 16, 24)
    for regions in None, maps, boxes(maps)[:2]:
        with pytest.raises(Refused, match="needs regions"):
            measure(small, x, maps, "relevance-mass", regions=regions)
    with pytest.raises(Refused, match="do not fit"):
        measure(small, x, maps[:, 1:], "deletion")


# --- targets and statistics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_one_right_class_is_a_mask_with_one_class(classes):
    """The short way of one class for each picture gives what the mask gives, and the same slopes."""
    generator = torch.Generator().manual_seed(classes)
    y = torch.randint(classes, (20,), generator=generator)
    one, mask = Misclassify(y), Misclassify(nn.functional.one_hot(y, classes).bool())
    z = (30 * torch.randn(20, classes, generator=generator)).requires_grad_()
    assert torch.equal(one.met(z), mask.met(z))
    assert torch.equal(one.right(z), mask.right(z))
    for name in "loss", "margin":
        short, long = (getattr(goal, name)(z) for goal in (one, mask))
        torch.testing.assert_close(short, long)
        slopes = [torch.autograd.grad(value.sum(), z, retain_graph=True)[0] for value in (short, long)]
        torch.testing.assert_close(*slopes)
    others = nn.functional.one_hot(y, classes) == 0
    torch.testing.assert_close(Become(y).loss(z), Misclassify(others).loss(z))
    with pytest.raises(Refused, match=f"class {classes}"):
        Misclassify(torch.full((20,), classes)).loss(z)


def test_targets_and_goals_by_hand():
    outputs = torch.randn(6, 4, generator=seeded(0))
    p, y = outputs.softmax(1), torch.tensor([0, 1, 2, 3, 0, 1])
    here = torch.arange(6)
    torch.testing.assert_close(ClassScore(y)(outputs), outputs[here, y])
    torch.testing.assert_close(ClassScore(2, of="prob")(outputs), p[:, 2])
    torch.testing.assert_close(Margin(y, 2)(outputs), outputs[here, y] - outputs[:, 2])
    best_other = torch.tensor([max(o[j] for j in range(4) if j != k) for o, k in zip(outputs, y, strict=True)])
    torch.testing.assert_close(Margin(y)(outputs), outputs[here, y] - best_other)
    odds = p[here, y].log() - (1 - p[here, y]).log()
    torch.testing.assert_close(Misclassify(y).loss(outputs), odds)
    torch.testing.assert_close(Become(y).loss(outputs), -odds)
    right = torch.zeros(6, 4, dtype=torch.bool)
    right[:, :2] = True
    torch.testing.assert_close(Misclassify(right).loss(outputs), (p[:, :2].sum(1) / p[:, 2:].sum(1)).log())
    everything = Misclassify(torch.ones(6, 4, dtype=torch.bool))
    assert everything.loss(outputs).isfinite().all()
    assert not everything.met(outputs).any()
    top = outputs.argmax(1)
    assert Misclassify(y).met(outputs).tolist() == (top != y).tolist()
    assert Misclassify(right).met(outputs).tolist() == (top > 1).tolist()
    assert Become(y).met(outputs).tolist() == (top == y).tolist()
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(Misclassify(y)[rows].loss(outputs[rows]), Misclassify(y).loss(outputs)[rows])
    torch.testing.assert_close(Become(y)[rows].loss(outputs[rows]), Become(y).loss(outputs)[rows])
    torch.testing.assert_close(ClassScore(y)[rows](outputs[rows]), ClassScore(y)(outputs)[rows])
    torch.testing.assert_close(Margin(y, 2)[rows](outputs[rows]), Margin(y, 2)(outputs)[rows])
    for bad in (ClassScore(4), ClassScore(-1), ClassScore([0, 1]), Margin(0, 4)):
        with pytest.raises(Refused):
            bad(outputs)


def test_wilson_is_scipys():
    for right, n in [(0, 1), (1, 1), (0, 7), (3, 7), (8, 10), (10, 10), (52, 1000)]:
        wanted = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right, n) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert wilson(0, 0) == (0.0, 1.0)


# Newcombe 1998 (Statistics in Medicine 17, 2635), table III, method 10: both, gained, lost, neither, and the interval
PAIRED = [
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    ((20, 12, 2, 16), (0.0562, 0.3292)),
    ((18, 12, 2, 18), (0.0562, 0.3290)),
    ((36, 14, 0, 0), (0.1528, 0.4167)),
    ((35, 14, 0, 1), (0.1461, 0.4175)),
    ((18, 14, 0, 18), (0.1441, 0.3963)),
    ((2, 97, 1, 0), (0.8721, 0.9854)),
    ((1, 97, 1, 1), (0.8736, 0.9850)),
    ((0, 29, 1, 0), (0.6666, 0.9882)),
    ((2, 98, 0, 0), (0.9178, 0.9945)),
    ((1, 98, 0, 1), (0.9171, 0.9916)),
    ((0, 30, 0, 0), (0.8395, 1.0)),
    ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ((53, 0, 0, 1), (-0.0729, 0.0729)),
    ((30, 0, 0, 24), (-0.0358, 0.0358)),
    ((29, 0, 0, 25), (-0.0354, 0.0354)),
    ((28, 0, 0, 26), (-0.0352, 0.0352)),
    ((27, 0, 0, 27), (-0.0351, 0.0351)),
]


def test_the_paired_interval_is_that_of_the_paper():
    for counts, (low, high) in PAIRED:
        assert paired_gap(*counts) == pytest.approx((low, high), abs=1e-4), counts  # one of 36 is cut, not rounded
        both, gained, lost, neither = counts
        swapped = paired_gap(both, lost, gained, neither)  # the runs change places, and the interval its sign
        assert swapped == pytest.approx((-high, -low), abs=1e-4)
    # Fagerland, Lydersen & Laake 2017, Statistical Analysis of Contingency Tables, chapter 8: consolidation therapy
    assert paired_gap(59, 6, 16, 80) == pytest.approx((-0.1186, -0.0046), abs=5.1e-5)
    assert [round(100 * v, 1) for v in paired_gap(159, 14, 3, 24)] == [1.4, 9.9]  # of docs/comparing.md
    p, q, n = 0.1, 0.4, 10  # right before on 4, after on another 1: phi is below 0 and is not corrected
    phi = (0 * 5 - 1 * 4) / (1 * 9 * 4 * 6) ** 0.5
    (low, high), (under, over) = wilson(1, n), wilson(4, n)
    down = ((p - low) ** 2 - 2 * phi * (p - low) * (over - q) + (over - q) ** 2) ** 0.5
    up = ((high - p) ** 2 - 2 * phi * (high - p) * (q - under) + (q - under) ** 2) ** 0.5
    assert paired_gap(0, 1, 4, 5) == pytest.approx((p - q - down, p - q + up), abs=1e-12)
    with pytest.raises(ValueError, match="needs a picture"):
        paired_gap(0, 0, 0, 0)


def test_mcnemar_by_hand_and_from_the_book():
    """Armitage & Berry 1994, p. 127: 12 against 2.  By hand: 2 (1 + 8) / 2^8 for 7 against 1."""
    assert mcnemar(12, 2) == pytest.approx(0.0129, abs=5e-5)
    assert mcnemar(7, 1) == mcnemar(1, 7) == pytest.approx(2 * 9 / 2**8)
    assert (mcnemar(0, 0), mcnemar(3, 3), mcnemar(1, 0)) == (1.0, 1.0, 1.0)
    assert mcnemar(14, 3) == pytest.approx(2 * sum(math.comb(17, k) for k in range(4)) / 2**17)


PERCENTILE = {"statistic": np.mean, "method": "percentile", "rng": 0}


def test_bootstrap_is_scipys():
    """With the level that makes percentiles as wide as Student's interval would be (Hesterberg 2015)."""
    for n in (8, 12, 60):
        v = np.random.default_rng(n).gamma(1.0, size=n)
        level = 1 - 2 * scipy.stats.norm.cdf(-((n / (n - 1)) ** 0.5) * scipy.stats.t.ppf(0.975, n - 1))
        assert 0.95 < level < 1
        wanted = scipy.stats.bootstrap(
            (v,), n_resamples=20000, confidence_level=level, **PERCENTILE
        ).confidence_interval
        found = bootstrap(v.tolist(), seed=1, draws=5000)
        assert found == pytest.approx(tuple(wanted), abs=0.06 * v.std())
        assert found == bootstrap(v.tolist(), seed=1, draws=5000)
        assert found != bootstrap(v.tolist(), seed=2, draws=5000)
    assert bootstrap([1.0, 3.0, 2.0, 4.0, 5.0, 6.0]) is None
    assert bootstrap([0.5] * 7) == (0.5, 0.5)
    for n in (7, 300):  # of which 2000 draws are more than are drawn at once
        drawn = np.random.default_rng(4)
        means = [v[drawn.integers(0, n, n)].mean() for v in [np.arange(n) ** 2.0] for _ in range(2000)]
        assert bootstrap((np.arange(n) ** 2.0).tolist(), seed=4) == tuple(np.percentile(means, tails(n)))


def test_judge_by_hand():
    assert [judge((a, b), floor=0.5) for a, b in ((0.5, 0.6), (0.4, 0.5), (0.3, 0.49))] == ["pass", "warn", "fail"]
    assert [judge((a, b), ceiling=0.5) for a, b in ((0.4, 0.5), (0.5, 0.6), (0.51, 0.6))] == ["pass", "warn", "fail"]
    assert judge(None, floor=math.inf) == "warn"
    with pytest.raises(ValueError, match="floor or a ceiling"):
        judge((0.1, 0.2))


# --- which layer ------------------------------------------------------------------------------------------------------

LAYERS = [  # the last feature maps before pooling
    ("torchvision", "resnet18", 64, "layer4", (512, 2, 2)),
    ("torchvision", "resnet18", 32, "layer3", (256, 2, 2)),
    ("torchvision", "resnet50", 32, "layer3", (1024, 2, 2)),
    ("torchvision", "vgg11_bn", 64, "features.27", (512, 4, 4)),
    ("torchvision", "mobilenet_v2", 64, "features", (1280, 2, 2)),
    ("torchvision", "densenet121", 64, "features", (1024, 2, 2)),
    ("torchvision", "squeezenet1_1", 64, "classifier.2", (1000, 3, 3)),
    ("torchvision", "efficientnet_b0", 64, "features", (1280, 2, 2)),
    ("torchvision", "convnext_tiny", 64, "features", (768, 2, 2)),
    ("torchvision", "googlenet", 64, "inception5b", (1024, 2, 2)),
    ("torchvision", "inception_v3", 96, "Mixed_6e", (768, 4, 4)),
    ("torchvision", "shufflenet_v2_x0_5", 64, "conv5", (1024, 2, 2)),
    ("timm", "resnet18", 64, "layer4", (512, 2, 2)),
    ("timm", "efficientnet_b0", 64, "bn2", (1280, 2, 2)),
    ("timm", "tf_efficientnet_lite0", 64, "bn2", (1280, 2, 2)),
    ("timm", "convnext_atto", 64, "stages", (320, 2, 2)),
    ("timm", "mobilenetv3_small_050", 64, "blocks", (288, 2, 2)),
    ("timm", "resnetv2_50", 64, "norm", (2048, 2, 2)),
]


SLOW = {
    "inception_v3", "vgg11_bn", "shufflenet_v2_x0_5", "resnetv2_50", "convnext_tiny", "resnet50", "googlenet",
}  # fmt: skip


def network(home: str, name: str, size: int) -> tuple[Classifier, Tensor]:
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if home == "timm":
        net = timm.create_model(name, pretrained=False)
    else:
        net = torchvision.models.get_model(name, weights=None, **extra)
    return classifier(net.eval(), (size, size), 1000), torch.rand(1, 3, size, size, generator=seeded(0))


@pytest.mark.parametrize(
    ("home", "name", "size", "layer", "shape"),
    [pytest.param(*c, marks=pytest.mark.slow if c[1] in SLOW else (), id=f"{c[0]}:{c[1]}@{c[2]}") for c in LAYERS],
)
def test_target_layer(home, name, size, layer, shape):
    model, x = network(home, name, size)
    assert target_layer(model, x) == layer
    assert [s.shape for s in probed(model, x).runs if s.name == layer] == [(1, *shape)]
    e = explain(model, x, "grad-cam", ClassScore(0))
    assert e.method == f"grad-cam(layer={layer})"
    assert e.maps.shape == (1, size, size)


class Own(nn.Module):
    """One ReLU for everything, and a branch beside the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.dense = nn.ReLU(inplace=True), nn.Linear(4, 3)
        self.branched = False

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.first(x))
        after = self.relu(self.second(h))
        return self.dense((after + h if self.branched else after).mean((2, 3)))


def test_target_layer_is_not_a_pool_nor_a_dropout():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(3, stride=1, padding=1), nn.Identity()
    )
    net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)])
    model = classifier(net, (8, 12), 3)
    with model.undisturbed():
        assert target_layer(model, torch.rand(1, 3, 8, 12)) == "1"


class Down(nn.Module):
    """A block that ends in one place; its first convolution still has several, and is one way of two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.beside = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 2), nn.Conv2d(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) + self.beside(x)


def test_target_layer_says_nothing_of_a_part_of_a_block_that_all_passes_through():
    net = nn.Sequential(nn.Conv2d(3, 4, 7), Down(), nn.Flatten(), nn.Linear(4, 3))
    assert target_layer(classifier(net.eval(), (8, 8), 3), torch.rand(1, 3, 8, 8)) == "0"  # a Notice would be an error


def test_target_layer_is_one_that_runs_once_and_that_all_passes_through():
    net = Own()
    model, x = classifier(net, (8, 12), 3), torch.rand(2, 3, 8, 12)
    assert target_layer(model, x) == "second"
    assert explain(model, x, "grad-cam").maps.isfinite().all()
    net.branched = True
    with pytest.warns(Notice, match="read is first: second, which comes later .* is one way of several to the scores"):
        assert target_layer(model, x) == "first"
    with pytest.raises(Refused, match="relu runs more than once"):
        explain(model, x, "grad-cam(layer=relu)")
    with pytest.raises(Refused, match="no layer 'secnd': did you mean second"):
        explain(model, x, "grad-cam(layer=secnd)")
    with pytest.raises(Refused, match="not feature maps"):
        explain(model, x, "grad-cam(layer=dense)")
