"""What the metrics say, by hand, by slow replicas of their papers' definitions, and beside a peer."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import splu
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn

from clearsight.core import rng
from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.passes import counted
from clearsight.core.preprocess import Preprocess
from clearsight.core.remembered import remembering
from clearsight.core.similarity import alike, average_ranks, spearman, ssim
from clearsight.core.sorting import ascending, descending
from clearsight.core.targets import ClassScore
from clearsight.errors import Notice, Refused
from clearsight.internals.randomisation import cuts, fresh, from_output_to_input, reinitialise
from clearsight.metrics.common.harmonic import coherency
from clearsight.metrics.common.likeness import likeness
from clearsight.perturbation.inpainting import inpainted
from clearsight.perturbation.map_thresholds import stretched
from clearsight.perturbation.removal import blurred, instead, taken
from clearsight.perturbation.removal_order import ranks
from clearsight.runner.run import explain, measure
from clearsight.testing import linear

MEAN = (0.4, 0.5, 0.6)


@pytest.fixture
def bent() -> Classifier:
    """A small network that is not linear, with BatchNorm."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    net[1].running_mean.uniform_(-0.5, 0.5)
    net[1].running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        net[5].weight.mul_(6)
    return Classifier(net.eval(), Preprocess((8, 12), MEAN, (0.2,) * 3), ("a", "b", "c"), "bent")


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(5, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(5, 8, 12, generator=torch.Generator().manual_seed(2))


def chance(model: Classifier, picture: Tensor, index: int) -> float:
    with torch.no_grad():
        return float(model(picture[None]).softmax(1)[0, index])


def empty(picture: Tensor, fill: str) -> Tensor:
    return torch.zeros_like(picture) if fill == "black" else picture.new_tensor(MEAN).view(3, 1, 1).expand_as(picture)


def soft(m: Tensor, percent: float = 0.0) -> Tensor:
    """A map from 0 to 1, its lowest places set to 0: place by place."""
    m = (m - m.min()) / (m.max() - m.min())
    lowest = sorted(itertools.product(*map(range, m.shape)), key=lambda at: float(m[at]))
    for at in lowest[: round(percent / 100 * m.numel())]:
        m[at] = 0
    return m


# Seen through the map -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["mean", "black"])
@pytest.mark.parametrize("threshold", [0.0, 50.0])
def test_what_is_seen_through_a_map(bent, pictures, maps, fill, threshold) -> None:
    found = {
        name: measure(bent, pictures, maps, f"{name}(threshold={threshold}, fill={fill})", ClassScore(1))
        for name in (
            "average-probability-increase",
            "average-probability-drop",
            "increase-rate",
            "drop-rate",
            "average-drop",
        )
    }
    for i, (x, m) in enumerate(zip(pictures, maps, strict=True)):
        nothing = empty(x, fill)
        before, after = chance(bent, x, 1), chance(bent, nothing + soft(m, threshold) * (x - nothing), 1)
        wanted = (
            max(0, after - before),
            max(0, before - after),
            after > before,
            after < before,
            max(0, before - after) / before,
        )
        for value, due in zip(found.values(), wanted, strict=True):
            assert float(value[i]) == pytest.approx(float(due), abs=1e-5)
    assert 0 < float(found["increase-rate"].mean() + found["drop-rate"].mean()) <= 1


@pytest.mark.parametrize("fill", ["mean", "black"])
def test_the_same_calibration_for_every_method(bent, pictures, maps, fill) -> None:
    """Without a threshold each map gets the one that is best for it: the highest rise of all of them."""
    call, target = "average-probability-increase(threshold={}, fill={})", ClassScore(torch.tensor([1, 1, 2, 1, 2]))
    with pytest.warns(Notice, match="flatters"):
        best = measure(bent, pictures, maps, call.format("none", fill), target)
    every = [measure(bent, pictures, maps, call.format(t, fill), target) for t in range(0, 100, 10)]
    torch.testing.assert_close(best, torch.stack(every).amax(0), rtol=0, atol=1e-5)
    assert len({int(k) for k in torch.stack(every).argmax(0)}) > 1
    for t in (-1, 95):
        with pytest.raises(Refused, match=f"threshold must be none, .*, not {t}"):
            measure(bent, pictures, maps, f"drop-rate(threshold={t})")


def test_a_picture_that_stays_as_it_is_neither_rises_nor_drops(bent, maps) -> None:
    """A picture of the mean colour is the same through any map."""
    x = empty(torch.empty(3, 8, 12), "mean").expand(5, 3, 8, 12)
    for name in ("increase-rate", "drop-rate", "average-probability-increase", "average-probability-drop"):
        assert measure(bent, x, maps, name, ClassScore(1)).tolist() == [0.0] * 5, name


# Taking pixels away ---------------------------------------------------------------------------------------------------


def solved(x: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """ROAD's imputation by a dense system, written down place by place."""
    places = [tuple(at) for at in np.argwhere(gone)]
    a, b = np.zeros((len(places), len(places))), np.zeros((len(places), len(x)))
    for k, (r, c) in enumerate(places):
        for dr, dc in itertools.product((-1, 0, 1), repeat=2):
            at = (r + dr, c + dc)
            if (dr, dc) == (0, 0) or not (0 <= at[0] < gone.shape[0] and 0 <= at[1] < gone.shape[1]):
                continue
            weight = 1 / 6 if 0 in (dr, dc) else 1 / 12
            a[k, k] += weight
            if gone[at]:
                a[k, places.index(at)] -= weight
            else:
                b[k] += weight * x[:, at[0], at[1]]
    out = x.copy()
    out[:, gone] = np.linalg.solve(a, b).T
    return out


def test_inpainting_solves_for_the_mean_of_the_neighbours(pictures) -> None:
    gone = torch.rand(5, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.7
    gone[1, :, :6] = True
    gone[2] = False
    gone[3] = True
    found = inpainted(pictures, gone, noise=0.0)
    for i in (0, 1, 2, 4):
        wanted = solved(pictures[i].double().numpy(), gone[i].numpy())
        np.testing.assert_allclose(found[i].numpy(), wanted, atol=1e-6)
    torch.testing.assert_close(found[3], pictures[3].mean((1, 2), keepdim=True).expand(3, 8, 12))
    with rng.seeded(0, pictures):
        noisy = inpainted(pictures, gone)
    assert torch.equal(noisy[~gone[:, None].expand_as(noisy)], pictures[~gone[:, None].expand_as(noisy)])
    assert float((noisy - found)[0][:, gone[0]].std()) == pytest.approx(0.01, rel=0.2)
    for value in (0.0, 1.0):  # the noise does not leave what a pixel can be
        flat = torch.full_like(pictures, value)
        with rng.seeded(0, pictures):
            noisy = inpainted(flat, gone)
        assert 0 <= float(noisy.min()) < float(noisy.max()) <= 1


def test_inpainting_eliminates_halves_of_the_grid_before_what_lies_between_them(monkeypatch) -> None:
    """By rows the factors of a square of n x n lost places hold about n ** 3 numbers; here about n ** 2 log n."""
    factors = []
    monkeypatch.setattr(
        "scipy.sparse.linalg.splu", lambda *args, **options: factors.append(splu(*args, **options)) or factors[-1]
    )
    gone = torch.zeros(1, 80, 80, dtype=torch.bool)
    gone[:, 8:72, 8:72] = True
    inpainted(torch.rand(1, 3, 80, 80), gone)
    assert factors[0].L.nnz < 64**3 / 2


def test_what_stands_in_the_place_of_taken_pixels(bent, pictures) -> None:
    """Versions of pictures 2, 0 and 2 again, each without places of its own."""
    rows, gone = torch.tensor([2, 0, 2]), torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    assert torch.equal(instead(bent, pictures, "blur"), blurred(pictures, 1.2))
    for fill in ("mean", "black"):
        assert torch.equal(instead(bent, pictures, fill)[3], empty(pictures[3], fill))
    assert instead(bent, pictures, "inpaint") is None
    for fill in ("mean", "blur", "inpaint"):
        nothing = instead(bent, pictures, fill)
        with rng.seeded(0, pictures):
            found = taken(pictures, gone, nothing, rows)
        for f, g, i in zip(found, gone, rows.tolist(), strict=True):
            x = pictures[i]
            put = torch.from_numpy(solved(x.double().numpy(), g.numpy())).float() if nothing is None else nothing[i]
            torch.testing.assert_close(f, torch.where(g, put, x), rtol=0, atol=0.06 if nothing is None else 0)
            assert not torch.equal(f, x)


@pytest.mark.peer
def test_inpainting_is_road_s_of_a_peer(pictures) -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    gone = torch.rand(8, 12, generator=torch.Generator().manual_seed(0)) < 0.6
    mine = inpainted(pictures[:1], gone[None], noise=0.0)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        peer = road.NoisyLinearImputer(noise=0.0)(pictures[0], (~gone).float())
    torch.testing.assert_close(mine, peer.float().view_as(mine), rtol=0, atol=1e-4)


def test_road_by_a_slow_replica(bent, pictures, maps) -> None:
    """Exact counts, from both ends; the noise of 1 % is all that may differ."""
    found = measure(bent, pictures, maps, "road(steps=3)", ClassScore(1, of="prob"))
    for i, (x, m) in enumerate(zip(pictures, maps, strict=True)):
        order = sorted(itertools.product(range(8), range(12)), key=lambda at: -float(m[at]))
        total = 0.0
        for k in (1, 2, 3):
            n = round(k * 96 / 4)
            values = []
            for part in (order[-n:], order[:n]):
                gone = np.zeros((8, 12), bool)
                gone[tuple(zip(*part, strict=True))] = True
                filled = torch.from_numpy(solved(x.double().numpy(), gone)).float()
                values.append(chance(bent, filled, 1))
            total += (values[0] - values[1]) / 2 / 3
        assert float(found[i]) == pytest.approx(total, abs=0.01)
    assert float(found.abs().max()) > 0.02


def test_road_takes_exact_counts_where_a_map_is_mostly_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers cut at a percentile, and take all zeros at once; each seed takes others of the equal places."""
    module = importlib.import_module("clearsight.metrics.road")
    taken: list[Tensor] = []
    monkeypatch.setattr(module, "taken", lambda x, gone, _, rows: [taken.append(gone), x[rows]][1])
    x, maps = torch.rand(2, 1, 1, 40, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 1, 40)
    maps[0, 0, 3] = 1.0
    for seed in (0, 1):
        measure(linear([[1.0] * 40, [0.0] * 40]), x, maps, "road(steps=3)", ClassScore(0), seed=seed)
    first, second = taken
    assert first.flatten(1).sum(1).tolist() == [10, 20, 30, 10, 20, 30] * 2
    assert first[:3, 0, 3].all()
    assert not first[3:6, 0, 3].any()
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("patch", "steps"), [(3, 4), (1, 10), (5, 99)])
def test_pixel_flipping_by_a_slow_replica(bent, pictures, maps, patch, steps) -> None:
    call = f"pixel-flipping(patch={patch}, steps={steps})"
    found = measure(bent, pictures, maps, call, ClassScore(2, of="prob"))
    with rng.seeded(0, pictures, "pixel-flipping"):
        noise = rng.uniform(pictures)
    for i, (x, m) in enumerate(zip(pictures, maps, strict=True)):
        corners = list(itertools.product(range(0, 8, patch), range(0, 12, patch)))
        corners.sort(key=lambda at: -float(m[at[0] : at[0] + patch, at[1] : at[1] + patch].mean()))
        now, values = x.clone(), [chance(bent, x, 2)]
        for r, c in corners[:steps]:
            here = (slice(None), slice(r, r + patch), slice(c, c + patch))
            now[here] = noise[i][here]
            values.append(chance(bent, now, 2))
        assert float(found[i]) == pytest.approx(values[0] - sum(values) / len(values), abs=1e-5)


def test_infidelity_by_a_slow_replica(bent, pictures, maps) -> None:
    call = "infidelity(samples=12, side=0.5, fill=black, scaled={})"
    plain, scaled = (measure(bent, pictures, maps, call.format(s), ClassScore(0)) for s in ("false", "true"))
    with rng.seeded(0, pictures, "infidelity"):
        places = rng.uniform(torch.empty(5, 12, 2))
    for i, (x, m) in enumerate(zip(pictures, maps, strict=True)):
        pairs = []
        for u, v in places[i].tolist():
            r, c = int(u * 5), int(v * 7)  # squares of 4 x 6 places
            without = x.clone()
            without[:, r : r + 4, c : c + 6] = 0
            with torch.no_grad():
                lost = float(bent(x[None])[0, 0] - bent(without[None])[0, 0])
            pairs.append((float(m[r : r + 4, c : c + 6].sum()), lost))
        assert float(plain[i]) == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / 12, rel=1e-4)
        factor = sum(a * b for a, b in pairs) / sum(a * a for a, _ in pairs)
        assert float(scaled[i]) == pytest.approx(sum((factor * a - b) ** 2 for a, b in pairs) / 12, rel=1e-3)


def test_the_terms_of_a_linear_model_are_never_wrong() -> None:
    weight = torch.randn(16, generator=torch.Generator().manual_seed(4))
    model = linear([weight.tolist(), [0.0] * 16])
    x = torch.rand(3, 1, 1, 16, generator=torch.Generator().manual_seed(5))
    terms = x[:, 0] * weight
    zero = {"infidelity(scaled=false)": terms, "infidelity": 7 * terms, "completeness(against=black)": terms}
    for call, m in zero.items():
        torch.testing.assert_close(measure(model, x, m, call, ClassScore(0)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(measure(model, x, terms, "sensitivity-n", ClassScore(0)), torch.ones(3))
    torch.testing.assert_close(measure(model, x, -terms, "sensitivity-n", ClassScore(0)), -torch.ones(3))
    assert (measure(model, x, 7 * terms, "infidelity(scaled=false)", ClassScore(0)) > 0.1).all()


def test_sensitivity_n_by_a_slow_replica(bent, pictures, maps) -> None:
    found = measure(bent, pictures, maps, "sensitivity-n(share=0.25, samples=20)", ClassScore(1))
    with rng.seeded(0, pictures, "sensitivity-n"):
        drawn = [ranks(torch.zeros_like(maps)) < 24 for _ in range(20)]
    for i, (x, m) in enumerate(zip(pictures, maps, strict=True)):
        sums, lost = [], []
        for gone in drawn:
            assert int(gone[i].sum()) == 24
            without = torch.where(gone[i], empty(x, "mean"), x)
            with torch.no_grad():
                lost.append(float(bent(x[None])[0, 1] - bent(without[None])[0, 1]))
            sums.append(float(m[gone[i]].sum()))
        assert float(found[i]) == pytest.approx(np.corrcoef(sums, lost)[0, 1], abs=1e-4)
    assert measure(bent, pictures, torch.zeros_like(maps), "sensitivity-n", ClassScore(1)).isnan().all()


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_sensitivity_n_takes_at_least_one_place_and_never_all(share) -> None:
    weight = [3.0, 1.0, 0.0, 2.0]
    found = measure(
        linear([weight, [0.0] * 4]), torch.ones(1, 1, 1, 4), torch.tensor([[weight]]), f"sensitivity-n(share={share})",
        ClassScore(0),
    )  # fmt: skip
    assert float(found) == pytest.approx(1.0)


# Of the explainer -----------------------------------------------------------------------------------------------------


class Squares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.square().sum((1, 2, 3)), x.sum((1, 2, 3))], 1)


def test_max_sensitivity_in_closed_form() -> None:
    """The gradient of a sum of squares is 2 x: it moves by twice the noise, but pixels stay within 0 and 1."""
    model = Classifier(Squares(), Preprocess((4, 4), (0.0,), (1.0,)), ("a", "b"), "squares")
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    x[:2, :, 0], x[:2, :, 1] = 0.0, 1.0
    call = "max-sensitivity(radius=0.05, samples=4)"
    maps = explain(model, x, "saliency", ClassScore(0)).maps
    torch.testing.assert_close(maps, 2 * x[:, 0])
    found = measure(model, x, maps, call, ClassScore(0), method="saliency")
    with rng.seeded(0, x, "max-sensitivity"):
        noise = torch.stack([0.05 * (2 * rng.uniform(x) - 1) for _ in range(4)])
    moved = (x + noise).clamp(0, 1) - x
    wanted = (2 * moved).flatten(2).norm(dim=2).amax(0) / maps.flatten(1).norm(dim=1)
    torch.testing.assert_close(found, wanted)


def test_completeness_by_hand(bent, pictures, maps) -> None:
    with torch.no_grad():
        whole = bent(pictures)
        without = bent(empty(pictures[0], "mean")[None])
    assert float(whole.min()) < 0 < float(whole.max())
    for against, every in (("mean", whole - without), ("nothing", whole)):
        for k, due in enumerate(every.T):
            found = measure(bent, pictures, maps, f"completeness(against={against})", ClassScore(k))
            torch.testing.assert_close(found, (maps.sum((1, 2)) - due).abs() / due.abs(), rtol=1e-4, atol=1e-5)
    exact = explain(bent, pictures, "integrated-gradients(steps=400)", ClassScore(2)).maps
    assert float(measure(bent, pictures, exact, "completeness(against=black)", ClassScore(2)).max()) < 0.02
    nothing = torch.zeros_like(pictures)  # where nothing is due there is no share of it
    assert measure(bent, nothing, maps, "completeness(against=black)", ClassScore(2)).isnan().all()


@pytest.mark.parametrize(
    ("order", "stages"), [("cascading", 2), ("cascading", 3), ("independent", 2), ("independent", 9)]
)
def test_parameter_randomisation_by_hand(bent, pictures, order, stages) -> None:
    before = explain(bent, pictures, "gradient-x-input", ClassScore(1)).maps
    call = f"parameter-randomisation(order={order}, stages={stages})"
    found = measure(bent, pictures, before, call, ClassScore(1), method="gradient-x-input", seed=5)
    names = from_output_to_input(bent, pictures[:1])
    assert names == ["5", "1", "0"]
    taken = {
        ("cascading", 2): [(0, 1), (1, 3)], ("cascading", 3): [(0, 1), (1, 2), (2, 3)],
        ("independent", 2): [(0, 1), (2, 3)], ("independent", 9): [(0, 1), (1, 2), (2, 3)],
    }[order, stages]  # fmt: skip
    net, values = copy.deepcopy(bent.net), []
    for first, last in taken:
        if order == "independent":
            net = copy.deepcopy(bent.net)
        with torch.random.fork_rng():
            torch.manual_seed(fresh(5, last))
            for name in names[first:last]:
                reinitialise(net.get_submodule(name))
        after = explain(dataclasses.replace(bent, net=net), pictures, "gradient-x-input", ClassScore(1)).maps
        values.append([abs(spearmanr(a.flatten(), b.flatten()).statistic) for a, b in zip(before, after, strict=True)])
    np.testing.assert_allclose(found.numpy(), np.mean(values, 0), atol=1e-5)
    if order == "cascading":
        assert not torch.equal(net[1].running_mean, bent.net[1].running_mean)  # BatchNorm's statistics are learnt too


def test_what_does_not_look_at_the_network_stays_the_same(bent, pictures) -> None:
    maps = explain(bent, pictures, "edge").maps
    for options in ("", "(by=ssim)", "(order=independent, magnitude=true)"):
        found = measure(bent, pictures, maps, f"parameter-randomisation{options}", ClassScore(0), method="edge")
        torch.testing.assert_close(found, torch.ones(5))
    other = dataclasses.replace(bent, net=copy.deepcopy(bent.net))
    torch.testing.assert_close(
        measure(bent, pictures, maps, "label-randomisation", ClassScore(0), method="edge", other=other), torch.ones(5)
    )


def test_label_randomisation_by_hand(bent, pictures) -> None:
    other = dataclasses.replace(bent, net=copy.deepcopy(bent.net))
    with torch.no_grad():
        other.net[0].weight.copy_(torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(8)))
    a, b = (explain(m, pictures, "gradient-x-input", ClassScore(1)).maps for m in (bent, other))
    told = {"method": "gradient-x-input", "other": other}
    found = measure(bent, pictures, a, "label-randomisation", ClassScore(1), **told)
    wanted = [abs(spearmanr(p.flatten(), q.flatten()).statistic) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    found = measure(bent, pictures, a, "label-randomisation(magnitude=true)", ClassScore(1), **told)
    wanted = [abs(spearmanr(abs(p).flatten(), abs(q).flatten()).statistic) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_the_explainer_is_run_again_with_the_same_seed(bent, pictures) -> None:
    """A random map is its own likeness where the same seed draws it twice."""
    maps = explain(bent, pictures, "random", seed=3).maps
    for seed, same in ((3, True), (0, False)):
        found = measure(bent, pictures, maps, "label-randomisation", method="random", other=bent, seed=seed, batch=2)
        assert bool((found > 0.9999).all()) == same


def test_the_explainer_is_asked_again_for_each_picture_s_own_class(bent, pictures) -> None:
    target = ClassScore(torch.tensor([0, 1, 2, 0, 1]))
    maps = explain(bent, pictures, "gradient-x-input", target).maps
    told = {"method": "gradient-x-input", "other": bent}
    found = measure(bent, pictures, maps, "label-randomisation", target, **told, batch=2)
    torch.testing.assert_close(found, torch.ones(5))
    assert float(measure(bent, pictures, maps, "label-randomisation", ClassScore(0), **told)[1]) < 0.99


def structural(a: np.ndarray, b: np.ndarray, side: int = 7) -> float:
    """SSIM by Wang et al. 2004, equation 13, in square windows, with sample variances, window by window."""
    a, b = a / abs(a).max(), b / abs(b).max()
    c1, c2 = ((k * (max(a.max(), b.max()) - min(a.min(), b.min()))) ** 2 for k in (0.01, 0.03))
    found = []
    for r, c in itertools.product(*(range(length - side + 1) for length in a.shape)):
        p, q = (m[r : r + side, c : c + side].flatten() for m in (a, b))
        (vp, cov), (_, vq) = np.cov(p, q)
        means = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
        found.append(means * (2 * cov + c2) / (vp + vq + c2))
    return float(np.mean(found))


@pytest.mark.parametrize("magnitude", [False, True])
def test_parameter_randomisation_and_label_randomisation_by_structure(bent, pictures, magnitude) -> None:
    other = dataclasses.replace(bent, net=copy.deepcopy(bent.net))
    with torch.random.fork_rng():
        torch.manual_seed(fresh(0, 3))
        for name in from_output_to_input(bent, pictures[:1]):
            reinitialise(other.net.get_submodule(name))
    before, after = (explain(m, pictures, "gradient-x-input", ClassScore(1)).maps for m in (bent, other))
    pairs = [(abs(a), abs(b)) if magnitude else (a, b) for a, b in zip(before.numpy(), after.numpy(), strict=True)]
    wanted = [abs(structural(a.astype(float), b.astype(float))) for a, b in pairs]
    options, told = f"by=ssim, magnitude={str(magnitude).lower()}", {"method": "gradient-x-input"}
    found = measure(bent, pictures, before, f"label-randomisation({options})", ClassScore(1), **told, other=other)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)
    found = measure(bent, pictures, before, f"parameter-randomisation({options}, stages=1)", ClassScore(1), **told)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)
    np.testing.assert_allclose(alike(*(m.astype(float) for m in pairs[0]))[2], structural(*pairs[0]), atol=1e-4)


@pytest.mark.parametrize("by", ["spearman", "ssim"])
def test_likeness_of_maps_that_are_the_same_everywhere(maps, by) -> None:
    """Nothing can be said of such a map; nothing is left of another that has become one, be it all 0."""
    flat, zero = torch.full((1, 8, 12), 2.0), torch.zeros(1, 8, 12)
    assert likeness(torch.cat([flat, zero]), maps[:2], by, False).isnan().all()
    assert likeness(maps[:2], torch.cat([flat, zero]), by, False).tolist() == [0.0, 0.0]


def test_ranks_share_ties_and_a_constant_has_none() -> None:
    a, b = np.array([[1.0, 1.0, 2.0, 9.0]]), np.array([[5.0, 1.0, 7.0, 7.0]])
    assert spearman(a, b) == pytest.approx(spearmanr(a[0], b[0]).statistic)
    assert spearman(a, np.ones((1, 4))) == 0.0
    one = torch.tensor([[[0.0, -1.0, 2.0]]])
    assert float(likeness(one, -one, "spearman", False)) == pytest.approx(-1)
    assert float(likeness(one, -one, "spearman", True)) == pytest.approx(1)
    rank, magnitude, _ = alike(np.array([[0.0, -1.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 2.0, 3.0]]))
    assert (rank, magnitude) == pytest.approx((0.8, 1.0))


@pytest.mark.parametrize("shape", [(1,), (40,), (7, 9), (0,)])
def test_average_ranks_are_those_of_scipy_and_nan_has_none(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(-3, 4, shape).astype(float)
    assert average_ranks(values).tolist() == rankdata(values).tolist()
    values[values == 2] = np.nan
    np.testing.assert_array_equal(average_ranks(values), rankdata(values, axis=None, nan_policy="omit").ravel())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_order_of_numbers_is_that_of_a_stable_sort(kind: type) -> None:
    """Of many values, of ties, of both zeros, of both nans, and of the smallest and largest there are."""
    random = np.random.default_rng(0)
    odd = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, *([1e300, -1e-300] * (kind is np.float64))]
    for values in (random.normal(size=5000), random.integers(-3, 4, 5000), np.array(odd * 2), np.zeros(9), np.zeros(0)):
        v = values.astype(kind)
        assert ascending(v).tolist() == v.argsort(kind="stable").tolist()
        assert descending(v).tolist() == torch.from_numpy(v).argsort(descending=True, stable=True).tolist()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_places_are_ranked_as_two_comparison_sorts_rank_them(kind: torch.dtype) -> None:
    """The draws' order, and the map's from the highest to the lowest among these."""
    maps = torch.randn(3, 9, 11, generator=torch.Generator().manual_seed(1)).round(decimals=1).to(kind)
    flat = maps.flatten(1)
    with rng.seeded(4, maps.float()):
        found = ranks(maps)
    with rng.seeded(4, maps.float()):
        shuffled = rng.uniform(flat).argsort(dim=1, stable=True)
    order = shuffled.gather(1, flat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    assert torch.equal(found.flatten(1).gather(1, order), torch.arange(99).expand(3, -1))


def test_the_ends_of_curves_go_through_the_network_once(bent: Classifier) -> None:
    """For each picture and each fill, whatever the map; and once where two pictures become the same."""
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    words = ("insertion(steps=3)", "deletion(steps=3)", "insertion(steps=3)", "deletion(steps=3, fill=black)")
    maps = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    alone = [measure(bent, x, m, w, ClassScore(0)) for m, w in zip(maps, words, strict=True)]
    forwards, together = [], []
    with remembering():
        for m, w in zip(maps, words, strict=True):
            with counted(bent.net) as passes:
                together.append(measure(bent, x, m, w, ClassScore(0)))
            forwards.append(passes.forwards)
    assert forwards == [2 * 2 + 2 + 2, 2 * 2 + 1, 2 * 2, 2 * 2 + 1]
    torch.testing.assert_close(torch.stack(together), torch.stack(alone))


def test_structure_in_a_small_window() -> None:
    """An even side gives the next smaller odd window; below three places there is none."""
    a, b = np.random.default_rng(0).normal(size=(2, 6, 9))
    a, b = a / abs(a).max(), b / abs(b).max()
    assert ssim(a, b) == pytest.approx(structural(a, b, side=5))
    assert math.isnan(ssim(a[:2], b[:2]))


class Spare(nn.Module):
    """A head that is never run, and statistics without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.last = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(x).mean((2, 3)))


def test_layers_from_the_output_to_the_input() -> None:
    model = Classifier(Spare().eval(), Preprocess((4, 4), (0.0,), (1.0,)), ("a", "b"), "spare")
    assert from_output_to_input(model, torch.rand(1, 1, 4, 4)) == ["last", "norm", "unused"]
    assert cuts(9, 1) == [9]
    assert cuts(4, 3) == [1, 2, 4]
    seeds = {fresh(seed, stage) for seed in range(3) for stage in range(3)}
    assert len(seeds) == 9
    assert min(seeds) > 2**32  # no seed that anybody began with


def test_what_the_runner_has_to_be_given(bent, pictures, maps) -> None:
    with pytest.raises(Refused, match="give the one that made the maps"):
        measure(bent, pictures, maps, "max-sensitivity")
    with pytest.raises(Refused, match="needs other"):
        measure(bent, pictures, maps, "label-randomisation", method="saliency")


# Where the object is, and the map alone -------------------------------------------------------------------------------


def test_rank_accuracy_and_iou_by_hand(bent, pictures) -> None:
    maps, regions = torch.zeros(5, 8, 12), torch.zeros(5, 8, 12, dtype=torch.bool)
    regions[:, 2:4, 2:4] = True
    maps[0, 2:4, 2:4] = 1.0
    maps[1, 2:4, 2:3], maps[1, 6:8, 2:3] = 5.0, 4.0
    maps[2, 2:4, 2:4], maps[2, 0, 0] = 0.5, 9.0
    maps[3] -= 1.0
    maps[4, 2:6, 2:4] = 3.0
    rank = measure(bent, pictures, maps, "rank-accuracy", regions=regions)
    assert rank[:3].tolist() == [1.0, 0.5, 0.75]
    assert 0 <= float(rank[3]) < 1
    against = regions.float() - 9 * (~regions).float()  # what speaks against the class comes last, however loud
    assert measure(bent, pictures, against, "rank-accuracy", regions=regions).tolist() == [1.0] * 5
    found = measure(bent, pictures, maps, "iou", regions=regions)
    torch.testing.assert_close(found, torch.tensor([1.0, 2 / 6, 0.0, 0.0, 0.5]))
    assert float(measure(bent, pictures, maps, "iou(threshold=0.05)", regions=regions)[2]) == pytest.approx(4 / 5)
    torch.testing.assert_close(measure(bent, pictures, maps, "iou(threshold=0.8)", regions=regions)[1], found[1])
    assert measure(bent, pictures, 0 * maps, "iou", regions=regions).tolist() == [0.0] * 5  # nothing is bright
    assert measure(bent, pictures, maps, "rank-accuracy", regions=regions & False).isnan().all()
    with pytest.raises(Refused, match=r"threshold, .*, not 1"):
        measure(bent, pictures, maps, "iou(threshold=1)", regions=regions)


def test_complexity_and_sparseness_in_closed_form(bent, pictures) -> None:
    maps = torch.zeros(5, 8, 12)
    maps[0] = -2.0  # all equal
    maps[1, 3, 3] = 5.0  # one place
    maps[2, 0, :4] = torch.tensor([1.0, -1.0, 1.0, 1.0])  # four equal ones
    maps[3, 0, :2] = torch.tensor([3.0, 1.0])
    entropy = measure(bent, pictures, maps, "complexity")
    shares = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(entropy[:4], torch.tensor([math.log(96), 0.0, math.log(4), shares]))
    gini = measure(bent, pictures, maps, "sparseness")
    v = np.sort(maps[3].flatten().abs().numpy())
    pairs = np.abs(v[:, None] - v[None]).sum() / (
        2 * 96 * v.sum()
    )  # the mean difference of all pairs, over twice the mean
    torch.testing.assert_close(gini[:4], torch.tensor([0.0, 1 - 1 / 96, 1 - 4 / 96, pairs]), rtol=0, atol=1e-5)
    assert entropy[4].isnan()
    assert gini[4].isnan()


@pytest.mark.parametrize("of", ["logit", "prob"])
@pytest.mark.parametrize("method", ["grad-cam(layer=2)", "gradient-x-input"])
@pytest.mark.parametrize("name", ["adcc", "arcc", "arcc(steps=2)"])
def test_adcc_and_arcc_by_a_replica(bent, pictures, name, method, of) -> None:
    """What is kept is asked of the probability in any case, the map again of the target."""
    classes = torch.tensor([1, 2, 0, 2, 1])
    target = ClassScore(classes, of=of)
    road = parse("road(steps=2)" if "2" in name else "road", "metrics")
    maps = explain(bent, pictures, method, target).maps
    found = measure(bent, pictures, maps, name, target, method=method)
    for i, (x, m, k) in enumerate(zip(pictures, maps, classes.tolist(), strict=True)):
        alone, hot, probability = x[None], soft(m), ClassScore(k, of="prob")
        nothing = empty(x, "mean")
        seen = (nothing + hot * (x - nothing)).clamp(0, 1)
        inner = explain(bent, seen[None], method, ClassScore(k, of=of)).maps[0].flatten()
        coherent = 0.5 if len(inner.unique()) == 1 else (np.corrcoef(hot.flatten(), inner)[0, 1] + 1) / 2
        if name == "adcc":
            before = chance(bent, x, k)
            first = 1 - max(0, before - chance(bent, seen, k)) / before
        else:
            with rng.seeded(0, alone, "arcc"):
                kept = road.method(bent, alone, probability, m[None], **road.options)
                first = float((2 * kept).clamp(0, 1))
        parts = [first, coherent, 1 - float(hot.mean())]
        wanted = 0.0 if min(parts) == 0 else 3 / sum(1 / p for p in parts)
        assert float(found[i]) == pytest.approx(wanted, abs=1e-4)


def test_adcc_of_a_map_that_is_the_same_everywhere() -> None:
    """Half of the chance is kept (1 to 1/2), coherency is 1/2, and none of the map is there: 3 / (2 + 2 + 1)."""
    x, model = torch.ones(1, 1, 1, 2), linear([[50.0, 0.0], [0.0, 0.0]])
    found = measure(model, x, torch.ones(1, 1, 2), "adcc", ClassScore(0), method="gradient-x-input")
    assert float(found) == pytest.approx(0.6)


def test_coherency_in_closed_form(bent, pictures) -> None:
    """1 where the map of what is seen through a map is that map in other units, 1/2 where flat, 0 upside down."""
    m = stretched(pictures.mean(1))
    for again, wanted in ((2 * m + 3, 1.0), (torch.ones_like(m), 0.5), (-m, 0.0)):
        found = coherency(bent, pictures, m, lambda _, x, again=again: again)
        torch.testing.assert_close(found.float(), torch.full((5,), wanted))
