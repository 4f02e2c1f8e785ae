"""The numbers of the explainers that cover the picture: closed forms, and slow replicas written from their papers."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy import ndimage
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.explainers.common.superpixels import segments
from clearsight.explainers.kernel_shap import coalitions
from clearsight.runner.run import explain

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(net: nn.Module, size: tuple[int, ...], classes: int, mean=MEAN, std=STD) -> Classifier:
    return Classifier(net.eval(), Preprocess(size, mean, std), tuple(map(str, range(classes))))


@pytest.fixture
def plane() -> tuple[Classifier, Tensor]:
    """A linear model of 4 × 5 pictures with normalisation, and its weights (2, 3, 4, 5) per pixel in [0, 1]."""
    weight = torch.randn(2, 3, 4, 5, generator=seeded(0))
    layer = nn.Linear(60, 2)
    layer.weight.data, layer.bias.data = weight.flatten(1), torch.tensor([0.1, -0.2])
    return classifier(nn.Sequential(nn.Flatten(), layer), (4, 5), 2), weight / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def bent() -> Classifier:
    """A smooth network of 8 × 12 pictures in which the pixels work together."""
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
    return classifier(net, (8, 12), 3)


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(3, 3, 8, 12, generator=seeded(1))


class Game(nn.Module):
    """A game of four players, the pixels of a (1, 1, 1, 4) picture that are 1: each coalition's worth is class 0."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = x.flatten(1).unbind(1)
        worth = 0.5 + 2 * a + 3 * b * c + a * b * c * d - 6 * a * c * d
        return torch.stack([worth, torch.zeros_like(worth)], 1)


@pytest.fixture
def game() -> Classifier:
    return classifier(Game(), (1, 4), 2, (0.0,), (1.0,))


def worth(game: Classifier, players: set[int]) -> float:
    x = torch.tensor([[[[float(i in players) for i in range(4)]]]])
    return float(game(x)[0, 0])


def mean_of_orders(game: Classifier, orders: list[tuple[int, ...]]) -> Tensor:
    """What each player adds when the players come in one after the other, averaged over the orders."""
    found = torch.zeros(4)
    for order in orders:
        for i, player in enumerate(order):
            found[player] += worth(game, {*order[: i + 1]}) - worth(game, {*order[:i]})
    return found / len(orders)


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_superpixels_are_whole_and_follow_the_picture():
    x = torch.full((2, 3, 60, 80), 0.1)
    x[0, 0, 17:, :] = 0.9  # an edge that no regular block has
    x[1, 2, :, 33:] = 0.8
    labels = segments(x, 5, "superpixels")
    assert labels.shape == (2, 60, 80)
    for piece in labels:
        assert sorted(set(piece.flatten().tolist())) == list(range(int(piece.max()) + 1))
        assert 15 <= piece.max() <= 35
    for low, high in ((labels[0, :17], labels[0, 17:]), (labels[1, :, :33], labels[1, :, 33:])):
        assert not set(low.flatten().tolist()) & set(high.flatten().tolist())


def test_superpixels_of_noise_and_of_few_pixels():
    noise = torch.rand(1, 3, 16, 24, generator=seeded(0))
    assert 20 < segments(noise, 7, "superpixels").max() < 60
    assert segments(torch.rand(1, 1, 1, 3), 7, "superpixels").tolist() == [[[0, 1, 2]]]


@pytest.mark.parametrize("size", [(10,), (4, 7), (3, 5, 4)])
def test_blocks(size):
    found = segments(torch.zeros(2, 1, *size), 3, "blocks")
    assert found.shape == (2, *size)
    assert (found[0] == found[1]).all()
    numbers: dict[tuple[int, ...], int] = {}
    for place in itertools.product(*map(range, size)):
        cell = tuple(i * min(3, side) // side for i, side in zip(place, size, strict=True))
        assert int(found[(0, *place)]) == numbers.setdefault(cell, int(found[(0, *place)]))
    assert sorted(numbers.values()) == list(range(3 ** len(size)))
    assert torch.equal(segments(torch.rand(2, 1, *size), 3, "blocks"), found)


# --- rise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centre", [True, False])
def test_rise_replica(bent, pictures, centre):
    """Section 3.2 of the paper, one mask and one axis at a time, from the same draws."""
    call = f"rise(masks=9, cells=3, keep=0.4, fill=0.2, centre={centre})"
    found = explain(bent, pictures, call, ClassScore([2, 0, 1])).maps
    for i, x in enumerate(pictures):
        total, scores, masks = np.zeros((8, 12)), [], []
        with rng.seeded(0, x[None], "rise"):
            for _ in range(9):
                drawn = rng.uniform(torch.empty(1, 11))[0].numpy()
                mask = (drawn[:9] < 0.4).reshape(3, 3).astype(float)
                for axis, side in ((0, 8), (1, 12)):
                    cell = math.ceil(side / 3)
                    size = 4 * cell  # of the enlarged grid: one cell more than the picture
                    at = (np.arange(size) + 0.5) * 3 / size - 0.5
                    mask = np.apply_along_axis(lambda line, at=at: np.interp(at, range(3), line), axis, mask)
                    start = int(drawn[9 + axis] * cell)
                    mask = mask.take(range(start, start + side), axis)
                masks.append(mask)
                seen = torch.from_numpy(mask).float() * x + (1 - torch.from_numpy(mask).float()) * 0.2
                with torch.no_grad():
                    scores.append(float(bent(seen[None])[0, [2, 0, 1][i]]))
        mean = sum(scores) / 9 if centre else 0
        for score, mask in zip(scores, masks, strict=True):
            total += (score - mean) * mask / (9 * 0.4)
        torch.testing.assert_close(found[i].double(), torch.from_numpy(total), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_rise_comes_to_its_expectation():
    """Over all grids of two cells and both shifts of a row of four pixels, each as likely as the other."""
    weight = torch.tensor([3.0, -2.0, 1.0, 0.5])
    layer = nn.Linear(4, 2)
    layer.weight.data, layer.bias.data = torch.stack([weight, -weight]), torch.tensor([1.0, 0.0])
    model = classifier(nn.Sequential(nn.Flatten(), layer), (1, 4), 2, (0.0,), (1.0,))
    x = torch.tensor([0.5, 1.0, 0.2, 0.8])
    large = [np.interp((np.arange(6) + 0.5) / 3 - 0.5, [0, 1], grid) for grid in itertools.product((0, 1), repeat=2)]
    masks = torch.tensor(np.array([m[s : s + 4] for m in large for s in (0, 1)])).float()
    scores = masks @ (x * weight) + 1
    for centre, from_what in ((True, scores - scores.mean()), (False, scores)):
        wanted = (from_what[:, None] * masks).mean(0) / 0.5
        call = f"rise(masks=20000, cells=2, centre={centre}, fill=0)"
        found = explain(model, x.view(1, 1, 1, 4), call, ClassScore(0)).maps[0, 0]
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.06)


def test_a_control_takes_what_is_linear_off_the_noise_of_rise():
    """Beside all eight masks there are of a row of four pixels: the map is theirs, nearly without noise."""
    weight = torch.tensor([3.0, -2.0, 1.0, 0.5])
    layer = nn.Linear(4, 2)
    layer.weight.data, layer.bias.data = torch.stack([weight, -weight]), torch.tensor([1.0, 0.0])
    model = classifier(nn.Sequential(nn.Flatten(), layer), (1, 4), 2, (0.0,), (1.0,))
    x = torch.tensor([[0.5, 1.0, 0.2, 0.8], [0.4, 0.1, 0.9, 0.3]]).view(2, 1, 1, 4)
    large = [np.interp((np.arange(6) + 0.5) / 3 - 0.5, [0, 1], grid) for grid in itertools.product((0, 1), repeat=2)]
    masks = torch.tensor(np.array([m[s : s + 4] for m in large for s in (0, 1)])).float()
    scores = (x.view(2, 4) * weight) @ masks.T + 1
    wanted = ((scores - scores.mean(1, keepdim=True))[..., None] * masks).mean(1) / 0.5
    errors = []
    for control in (True, False):
        call = f"rise(masks=200, cells=2, control={control}, fill=0)"
        maps = torch.stack([explain(model, x, call, ClassScore(0), seed=i).maps[:, 0] for i in range(12)])
        errors.append(float((maps - wanted).square().mean()))
        torch.testing.assert_close(explain(model, x[1:], call, ClassScore(0), seed=3).maps[0], maps[3, 1:])
    assert errors[0] < errors[1] / 20
    assert errors[0] < 1e-4


def test_rise_refuses_nonsense(bent, pictures):
    for options in "masks=0", "cells=0", "keep=0", "keep=1.2":
        with pytest.raises(Refused, match="keep above 0 and at most 1"):
            explain(bent, pictures, f"rise({options})")


# --- lime -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0.2, None])
def test_lime_of_a_linear_model_is_weight_times_what_is_hidden(plane, fill):
    (model, w), x = plane, torch.rand(2, 3, 4, 5, generator=seeded(2))
    cover = torch.tensor(MEAN).view(3, 1, 1) if fill is None else fill
    call = f"lime(samples=60, ridge=0, fill={fill}, pieces=blocks)"
    found = explain(model, x, call, ClassScore([1, 0])).maps
    torch.testing.assert_close(found, (w[[1, 0]] * (x - cover)).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ridge", [1.0, 0.1])
def test_lime_replica(bent, pictures, ridge):
    """The samples from the same draws, and the fit by scikit-learn, as the authors' code does it."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import pairwise_distances

    call = f"lime(samples=40, cells=3, ridge={ridge}, width=0.3, fill=0.2)"
    found = explain(bent, pictures, call, ClassScore([2, 0, 1])).maps
    labels = segments(pictures, 3, "superpixels")
    for i, (x, piece) in enumerate(zip(pictures, labels, strict=True)):
        m = int(piece.max()) + 1
        with rng.seeded(0, x[None], "lime"):
            z = (rng.uniform(torch.empty(1, 40, m))[0] < 0.5).double().numpy()
        z[0] = 1
        scores = []
        for sample in z:
            seen = x.clone()
            for k in range(m):
                if not sample[k]:
                    seen[:, piece == k] = 0.2
            with torch.no_grad():
                scores.append(float(bent(seen[None])[0, [2, 0, 1][i]]))
        d = pairwise_distances(z, z[:1], metric="cosine")[:, 0]
        fit = Ridge(alpha=ridge).fit(z, scores, np.sqrt(np.exp(-(d**2) / 0.3**2)))
        wanted = torch.tensor(fit.coef_)[piece]
        torch.testing.assert_close(found[i].double(), wanted, rtol=1e-3, atol=1e-5)


def test_lime_refuses_nonsense(bent, pictures):
    for options in "samples=0", "width=0", "ridge=-1":
        with pytest.raises(Refused, match="lime"):
            explain(bent, pictures, f"lime({options})")
    with pytest.raises(Refused, match="cells must be at least 1"):
        explain(bent, pictures, "lime(cells=0)")


# --- kernel-shap ------------------------------------------------------------------------------------------------------


def test_kernel_shap_is_the_shapley_value_of_four_players(game):
    """What several players earn together is shared equally among them; and so say all 24 orders."""
    wanted = torch.tensor([2 + 1 / 4 - 2, 3 / 2 + 1 / 4, 3 / 2 + 1 / 4 - 2, 1 / 4 - 2])
    torch.testing.assert_close(mean_of_orders(game, list(itertools.permutations(range(4)))), wanted)
    found = explain(game, torch.ones(1, 1, 1, 4), "kernel-shap(samples=16)", ClassScore(0))
    torch.testing.assert_close(found.maps[0, 0], wanted, rtol=1e-4, atol=1e-5)
    assert found.forwards == 16


def test_kernel_shap_by_sampling_comes_to_the_shapley_values(bent, pictures):
    exact = explain(bent, pictures, "kernel-shap(samples=512, cells=3, pieces=blocks)", ClassScore(1))
    assert exact.forwards == 512
    few, many = (
        (explain(bent, pictures, f"kernel-shap(samples={n}, cells=3, pieces=blocks)", ClassScore(1)).maps - exact.maps)
        .abs()
        .mean()
        for n in (40, 500)
    )
    scale = exact.maps.abs().mean()
    assert few > 0.03 * scale
    assert many < 0.03 * scale


def test_kernel_shap_exact_is_the_sum_over_all_sets(bent, pictures):
    """Equation 4 of the paper, set by set."""
    found = explain(bent, pictures[:1], "kernel-shap(samples=256, cells=2, pieces=blocks, fill=0.1)", ClassScore(1))
    x = pictures[0]
    value = {}
    for k in range(5):
        for left in itertools.combinations(range(4), k):
            seen = torch.full_like(x, 0.1)
            for r, c in (divmod(b, 2) for b in left):
                here = (slice(None), slice(4 * r, 4 * r + 4), slice(6 * c, 6 * c + 6))
                seen[here] = x[here]
            with torch.no_grad():
                value[frozenset(left)] = float(bent(seen[None])[0, 1])
    for b in range(4):
        total = 0.0
        for left in value:
            if b not in left:
                weight = math.factorial(len(left)) * math.factorial(3 - len(left)) / math.factorial(4)
                total += weight * (value[left | {b}] - value[left])
        block = found.maps[0, 4 * (b // 2) : 4 * (b // 2) + 4, 6 * (b % 2) : 6 * (b % 2) + 6]
        torch.testing.assert_close(block, torch.full((4, 6), total), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("samples", [4, 7, 30, 200])
def test_kernel_shap_shares_out_the_whole(bent, pictures, samples):
    e = explain(bent, pictures, f"kernel-shap(samples={samples}, cells=4)", ClassScore([1, 2, 0]))
    assert e.forwards == samples
    cover = torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(pictures)
    with torch.no_grad():
        gap = (bent(pictures) - bent(cover)).gather(1, torch.tensor([[1], [2], [0]]))[:, 0]
    labels = segments(pictures, 4, "superpixels")
    for i in range(3):
        pieces = [e.maps[i][labels[i] == k] for k in range(int(labels[i].max()) + 1)]
        assert all((p == p[0]).all() for p in pieces)
        torch.testing.assert_close(torch.stack([p[0] for p in pieces]).sum(), gap[i], rtol=1e-4, atol=1e-4)
    assert e.diagnostics["completeness residual"].abs().max() < 1e-6


def test_kernel_shap_fits_under_the_constraint():
    """The answer of the normal equations with a Lagrange multiplier, where they have one."""
    from clearsight.explainers.kernel_shap import constrained_fit

    z, weight = coalitions(61, 6, 0)  # the last one without its complement
    assert len(z) == 61
    y = torch.randn(61, generator=seeded(0), dtype=torch.float64)
    a = torch.zeros(7, 7, dtype=torch.float64)
    inner = z[2:].double()
    a[:6, :6] = inner.T @ inner
    a[6, :6] = a[:6, 6] = 1
    right = torch.cat([inner.T @ (y[2:] - y[1]), (y[0] - y[1]).view(1)])
    torch.testing.assert_close(constrained_fit(z.double(), weight, y), torch.linalg.solve(a, right)[:6])


def test_kernel_shap_draws_by_the_shapley_kernel():
    m = 6
    z, weight = coalitions(63, m, 0)  # one fewer than all sets: drawn
    assert (weight == 1).all()
    assert z[0].all()
    assert not z[1].any()
    drawn = torch.cat([coalitions(63, m, 0)[0][2:] for _ in range(200)])
    pairs = drawn[: len(drawn) // 61 * 61].view(-1, 61, m)[:, :60].reshape(-1, 2, m)
    assert (pairs[:, 0] ^ pairs[:, 1]).all()
    first = pairs[:, 0]
    share = np.array([math.comb(m, s) / (math.comb(m, s) * s * (m - s)) for s in range(1, m)])
    sizes = torch.bincount(first.sum(1), minlength=m + 1)[1:m].numpy()
    assert scipy.stats.chisquare(sizes, share / share.sum() * sizes.sum()).pvalue > 0.001
    assert scipy.stats.chisquare(first.sum(0)).pvalue > 0.001


def test_kernel_shap_refuses_nonsense(bent, pictures):
    with pytest.raises(Refused, match="at least 4"):
        explain(bent, pictures, "kernel-shap(samples=3)")


# --- partition-shap ---------------------------------------------------------------------------------------------------


def test_partition_shap_is_the_owen_value_of_four_players(game):
    """The mean over the orders in which the two halves, and the two in each half, come one after the other."""
    halves = [((0, 1), (2, 3)), ((2, 3), (0, 1))]
    orders = [(*a, *b) for first, second in halves for a in (first, first[::-1]) for b in (second, second[::-1])]
    wanted = mean_of_orders(game, orders)
    found = explain(game, torch.ones(1, 1, 1, 4), "partition-shap", ClassScore(0)).maps[0, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (wanted - mean_of_orders(game, list(itertools.permutations(range(4))))).abs().max() > 0.1


def test_partition_shap_of_a_linear_model_is_weight_times_path(plane):
    (model, w), x = plane, torch.rand(2, 3, 4, 5, generator=seeded(2))
    wanted = (w[[1, 0]] * (x - 0.2)).sum(1)
    found = explain(model, x, "partition-shap(samples=100000, fill=0.2)", ClassScore([1, 0])).maps
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    two = explain(model, x, "partition-shap(samples=4, fill=0.2)", ClassScore([1, 0])).maps
    for part in (slice(0, 2), slice(2, 5)):  # the longest side, halved
        mean = wanted[:, :, part].mean((1, 2), keepdim=True)
        torch.testing.assert_close(two[:, :, part], mean.expand(2, 4, part.stop - part.start), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [2, 5, 12, 77])
def test_partition_shap_shares_out_the_whole(bent, pictures, samples):
    e = explain(bent, pictures, f"partition-shap(samples={samples})", ClassScore([1, 2, 0]))
    assert e.forwards == samples // 2 * 2
    cover = torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(pictures)
    with torch.no_grad():
        gap = (bent(pictures) - bent(cover)).gather(1, torch.tensor([[1], [2], [0]]))[:, 0]
    torch.testing.assert_close(e.maps.sum((1, 2)), gap, rtol=1e-4, atol=1e-4)
    assert e.diagnostics["completeness residual"].abs().max() < 1e-5


def test_partition_shap_looks_where_the_value_is():
    """Two pixels of 64 decide; a budget that could not halve everything finds them."""
    weight = torch.zeros(8, 8)
    weight[5, 2], weight[1, 6] = 4.0, -3.0
    layer = nn.Linear(64, 2)
    layer.weight.data, layer.bias.data = torch.stack([weight.flatten(), -weight.flatten()]), torch.zeros(2)
    model = classifier(nn.Sequential(nn.Flatten(), layer), (8, 8), 2, (0.0,), (1.0,))
    x = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(explain(model, x, "partition-shap(samples=260)", ClassScore(0)).maps[0], weight)
    coarse = explain(model, x, "partition-shap(samples=12)", ClassScore(0)).maps[0]
    wanted = torch.zeros(8, 8)
    wanted[4:, :4], wanted[:4, 4:] = 4 / 16, -3 / 16
    torch.testing.assert_close(coarse, wanted)


def test_partition_shap_replica(bent, pictures):
    """Halved in the same order, but told from the recursion: a list that is sorted each round."""
    x = pictures[0]

    def score(seen: frozenset[tuple[int, int]]) -> float:
        picture = torch.full_like(x, 0.3)
        for r, c in seen:
            picture[:, r, c] = x[:, r, c]
        with torch.no_grad():
            return float(bent(picture[None])[0, 1])

    everything = frozenset(itertools.product(range(8), range(12)))
    open_, wanted, left = [(everything, frozenset(), 1.0)], torch.zeros(8, 12), 40
    worths = {s: score(s) for s in (everything, frozenset())}
    while left >= 2:
        open_.sort(key=lambda n: -n[2] * abs(worths[n[1] | n[0]] - worths[n[1]]))
        chosen, open_ = open_[: min(8, left // 2)], open_[min(8, left // 2) :]
        left -= 2 * len(chosen)
        for box, seen, share in chosen:
            rows, columns = sorted({r for r, _ in box}), sorted({c for _, c in box})
            if len(rows) >= len(columns):
                a = frozenset(p for p in box if p[0] < rows[len(rows) // 2])
            else:
                a = frozenset(p for p in box if p[1] < columns[len(columns) // 2])
            b = box - a
            worths |= {s: score(s) for s in (seen | a, seen | b)}
            open_ += [(a, seen, share / 2), (b, seen, share / 2), (a, seen | b, share / 2), (b, seen | a, share / 2)]
    for box, seen, share in open_:
        for r, c in box:
            wanted[r, c] += share * (worths[seen | box] - worths[seen]) / len(box)
    found = explain(bent, pictures[:1], "partition-shap(samples=42, fill=0.3)", ClassScore(1)).maps[0]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_partition_shap_refuses_nonsense(bent, pictures):
    with pytest.raises(Refused, match="at least 2"):
        explain(bent, pictures, "partition-shap(samples=1)")


# --- meaningful-perturbation ------------------------------------------------------------------------------------------


def test_meaningful_perturbation_replica(bent, pictures):
    """Section 4 of the paper with Adam written out (Kingma & Ba 2015, algorithm 1), one picture at a time."""
    call = "meaningful-perturbation(iterations=7, cells=5, l1=0.3, tv=0.2, noise=0.1, sigma=2)"
    found = explain(bent, pictures, call, ClassScore([2, 0, 1])).maps
    kernel = torch.tensor([math.exp(-(t**2) / 8) for t in range(-6, 7)])
    kernel = kernel / kernel.sum()
    for i, x in enumerate(pictures):
        blur = x.clone()
        for axis, side in ((1, 8), (2, 12)):
            at = [[min(max(p + t, 0), side - 1) for p in range(side)] for t in range(-6, 7)]
            blur = sum(k * blur.index_select(axis, torch.tensor(a)) for k, a in zip(kernel, at, strict=True))
        c = [2, 0, 1][i]
        with torch.no_grad():
            unit = float((bent(x[None]) - bent(blur[None]))[0, c].abs())
        m, first, second = torch.ones(5, 5), torch.zeros(5, 5), torch.zeros(5, 5)
        with rng.seeded(0, x[None], "meaningful-perturbation"):
            for step in range(1, 8):
                z = m.clone().requires_grad_()
                large = nn.functional.interpolate(z[None, None], (8, 12), mode="bilinear")[0]
                seen = large * x + (1 - large) * blur
                seen = seen + 0.1 * torch.tensor(STD).view(3, 1, 1) * rng.normal(x[None])[0]
                rough = sum(
                    (z[r, c_] - z[r + a, c_ + b]).abs() ** 3
                    for a, b in ((0, 1), (1, 0))
                    for r in range(5 - a)
                    for c_ in range(5 - b)
                )
                (bent(seen[None])[0, c] / unit + 0.3 * (1 - z).abs().mean() + 0.2 * rough).backward()
                first = 0.9 * first + 0.1 * z.grad
                second = 0.999 * second + 0.001 * z.grad**2
                move = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
                m = (m - 0.1 * move).clamp(0, 1)
        wanted = 1 - nn.functional.interpolate(m[None, None], (8, 12), mode="bilinear")[0, 0]
        torch.testing.assert_close(found[i], wanted, rtol=1e-3, atol=1e-3)
        assert wanted.max() > 0.3


def test_meaningful_perturbation_finds_what_the_class_hangs_on(bent, pictures):
    """With its map blurred away the target falls by more than with the map turned upside down; l1 makes it smaller."""
    from clearsight.perturbation.removal import blurred

    target = ClassScore([2, 0, 1])
    runs = [
        explain(bent, pictures, f"meaningful-perturbation(iterations=60, cells=8, sigma=2, l1={l1})", target).maps
        for l1 in (0.3, 3.0)
    ]
    assert (runs[0].mean((1, 2)) > runs[1].mean((1, 2))).all()
    assert runs[0].min() >= 0
    assert runs[0].max() <= 1
    blur = blurred(pictures, 2)

    def left(maps: Tensor) -> Tensor:
        with torch.no_grad():
            return target(bent(pictures + maps[:, None] * (blur - pictures)))

    assert (left(runs[0]) < left(runs[0].flip(1)) - 0.1).all()
    assert (left(runs[0]) < left(torch.ones_like(runs[0]))).all()


def test_meaningful_perturbation_of_more_pictures_than_a_pass_holds(bent):
    x, classes = torch.rand(18, 3, 8, 12, generator=seeded(4)), torch.arange(18) % 3
    method = catalogue("explainers")["meaningful-perturbation"]
    whole = method(bent, x, ClassScore(classes), iterations=2, noise=0.0)
    for i in (0, 15, 16, 17):
        alone = method(bent, x[i : i + 1], ClassScore(classes[i]), iterations=2, noise=0.0)
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-3, atol=1e-3)


def test_meaningful_perturbation_refuses_nonsense(bent, pictures):
    for options in "iterations=0", "cells=0", "l1=-1", "tv=-1", "noise=-1", "sigma=0":
        with pytest.raises(Refused, match="meaningful-perturbation"):
            explain(bent, pictures, f"meaningful-perturbation({options})")


# --- xrai -------------------------------------------------------------------------------------------------------------


def test_xrai_replica(bent, pictures):
    """Algorithm 1 of the paper, with every gain counted anew each round, from the regions that the method cuts."""
    from clearsight.explainers.xrai import overlapping_regions

    steps = 4
    found = explain(bent, pictures, f"xrai(steps={steps})", ClassScore([2, 0, 1])).maps
    for i, x in enumerate(pictures):
        merged = torch.zeros_like(x)
        for end in (float(x.min()), float(x.max())):
            for k in range(steps):
                p = (end + (k + 0.5) / steps * (x - end)).requires_grad_()
                bent(p[None])[0, [2, 0, 1][i]].backward()
                merged += (x - end) * p.grad / steps / 2
        density = merged.amax(0).double().numpy()
        left = [set(np.flatnonzero(region)) for region in overlapping_regions(x)]
        taken: set[int] = set()
        wanted = np.full(96, np.nan)
        while True:
            new = [region - taken for region in left]
            new = [n for n in new if n and len(n) >= 50 * 96 / 224**2]
            if not new:
                break
            best = max(new, key=lambda n: np.mean([density.flat[p] for p in n]))
            wanted[list(best)] = np.mean([density.flat[p] for p in best])
            taken |= best
        rest = [p for p in range(96) if p not in taken]
        if rest:
            wanted[rest] = np.mean([density.flat[p] for p in rest])
        torch.testing.assert_close(found[i].flatten().double(), torch.from_numpy(wanted), rtol=1e-3, atol=1e-5)


def test_xrai_takes_the_regions_by_the_mean_of_what_is_new():
    from clearsight.explainers.xrai import SIDE, rank_regions

    density = np.zeros((SIDE, SIDE))
    density[:10, :10] = 3.0
    density[:10, 10:20] = 1.0
    density[30:50, 30:50] = 2.0  # the largest sum, but not the largest mean
    density[200:, 200:] = -1.0
    density[100:150, :] = 0.5  # no region has it
    regions = np.zeros((5, SIDE, SIDE), dtype=bool)
    regions[0, :10, :10] = True
    regions[1, :10, :20] = True  # its mean is 2, that of what it adds to the first is 1
    regions[2, 30:50, 30:50] = True
    regions[3, 30:50, 30:51] = True  # adds 20 pixels to the one before: too few
    regions[4, 200:, :] = True
    found = rank_regions(density[None], [regions.reshape(5, -1)])[0]
    assert (found[:10, :10] == 3).all()
    assert np.allclose(found[:10, 10:20], 1)
    assert (found[30:50, 30:50] == 2).all()
    assert np.allclose(found[200:, :], -(24**2) / (24 * SIDE))
    rest = ~regions[[0, 1, 2, 4]].any(0)
    assert np.allclose(found[rest], density[rest].mean())
    assert density[rest].mean() > 0.1
    assert rest[30:50, 50].all()


def test_xrai_regions_are_felzenszwalbs_grown_by_a_disk():
    """At 224 pixels, and so they are for a picture of twice the size."""
    from skimage.morphology import dilation, disk
    from skimage.segmentation import felzenszwalb

    from clearsight.explainers.xrai import overlapping_regions

    speckled = torch.rand(3, 224, 224, generator=seeded(0)) * 0.05
    speckled[:, 60:100, 60:100] += 0.5
    pixels = speckled.permute(1, 2, 0).double().numpy() * 2 - 1
    wanted = []
    for scale in (50, 100, 150, 250, 500, 1200):
        labels = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=150)
        wanted += [dilation(labels == i, disk(5)) for i in range(labels.max() + 1)]
    assert (overlapping_regions(speckled).reshape(-1, 224, 224) == np.stack(wanted)).all()
    assert 6 < len(wanted) < 400
    large = overlapping_regions(speckled.repeat_interleave(2, 1).repeat_interleave(2, 2)).reshape(-1, 448, 448)
    assert (large[:, ::2, ::2].mean(0) - np.stack(wanted).mean(0)).std() < 0.1


def test_xrai_ranks_all_pictures_in_the_same_rounds_and_smooths_each_once(bent, pictures, monkeypatch):
    """What is saved, counted; and a picture has the map that it has alone."""
    sums, smoothed = [], []
    bincount, gaussian = np.bincount, ndimage.gaussian_filter

    def counted(*given, **options):
        sums.append(1)
        return bincount(*given, **options)

    def noted(image, sigma, **options):
        smoothed.append(max(np.atleast_1d(sigma)) > 0)  # felzenszwalb calls it with 0 for each of six scales
        return gaussian(image, sigma=sigma, **options)

    monkeypatch.setattr(np, "bincount", counted)
    monkeypatch.setattr(ndimage, "gaussian_filter", noted)
    whole, rounds = explain(bent, pictures, "xrai(steps=1)", ClassScore(0)).maps, [len(sums)]
    assert (sum(smoothed), len(smoothed)) == (3, 3 * 7)
    for picture, wanted in zip(pictures, whole, strict=True):
        sums.clear()
        torch.testing.assert_close(explain(bent, picture[None], "xrai(steps=1)", ClassScore(0)).maps[0], wanted)
        rounds.append(len(sums))
    assert rounds[0] == max(rounds[1:]) > 6  # of bincount, two a round


def test_xrai_of_a_flat_picture_is_nothing(bent):
    assert (explain(bent, torch.full((1, 3, 8, 12), 0.3), "xrai(steps=2)", ClassScore(0)).maps == 0).all()
