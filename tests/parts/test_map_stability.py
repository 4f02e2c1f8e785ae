"""Maps that move while the answer stays, and whether that gives an attack away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
from PIL import Image
from torch import Tensor, nn

from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.checks import map_stability
from clearsight.checks.map_stability import auc, auc_interval, likeness, overlap, roc, smoothed
from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.data.datasets import Picture, Pictures
from clearsight.errors import Refused
from clearsight.internals.recording import graph_of
from clearsight.internals.relu import open_range
from clearsight.internals.second_order import second_order_rules
from clearsight.runner.move_map import (
    THROUGH,
    MovedMap,
    centred_ranks,
    correlation_gradient,
    differentiable_map,
    maps_and_lead,
    move_map,
    moved_pictures,
    rank_correlations,
)
from clearsight.runner.run import explain
from clearsight.testing import linear, rectified


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rank(p: Tensor, q: Tensor) -> float:
    """Spearman's correlation by scipy; 0 for a map that is empty."""
    return float(scipy.stats.spearmanr(p.flatten(), q.flatten()).statistic) if p.std() > 0 and q.std() > 0 else 0.0


@pytest.fixture(scope="module")
def taught() -> tuple[Classifier, Tensor]:
    """A network that has learned in which third of a picture the light is, and 12 pictures that it is right about."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        y = torch.arange(12) % 3
        x = torch.rand(12, 3, 8, 12) * 0.4
        for i, k in enumerate(y.tolist()):
            x[i, :, :, 4 * k : 4 * k + 4] += 0.5
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(48, 3),
        )  # fmt: skip
        model = Classifier(net, Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3), ("left", "middle", "right"), "taught")
        adam = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            adam.step()
        net.eval()
        adam.zero_grad()
        assert torch.equal(model(x).argmax(1), y)
    return model, x


# --- move_map ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", THROUGH)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_answer_stays_and_the_map_moves_far_more_than_by_noise(taught, method, norm):
    model, x = taught
    eps = 0.2 if norm == "linf" else 3.0
    a = move_map(model, x, method, eps=eps, norm=norm)
    before = model(x).argmax(1)
    assert torch.equal(model(a.x).argmax(1), before)
    assert a.kept.all()
    far = (a.x - x).flatten(1)
    assert float(far.abs().amax(1).max() if norm == "linf" else far.norm(dim=1).max()) <= eps + 1e-6
    assert a.x.min() >= 0
    assert a.x.max() <= 1
    noise = torch.randn(x.shape, generator=chance(1))
    noise = noise.sign() * eps if norm == "linf" else noise * (eps / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    noisy = explain(model, (x + noise).clamp(0, 1), method, ClassScore(before)).maps
    clean = explain(model, x, method, ClassScore(before)).maps
    by_noise = [rank(p, q) for p, q in zip(clean, noisy, strict=True)]
    assert float(a.correlation.mean()) < np.mean(by_noise) - 0.3
    torch.testing.assert_close(a.before, clean)
    torch.testing.assert_close(a.after, explain(model, a.x, method, ClassScore(before)).maps)
    wanted = [rank(p, q) for p, q in zip(a.before, a.after, strict=True)]
    torch.testing.assert_close(a.correlation, torch.tensor(wanted, dtype=torch.float32), rtol=0, atol=1e-5)


def test_the_map_of_a_linear_model_cannot_move():
    model = linear(torch.randn(3, 20, generator=chance(0)).tolist())
    x = torch.rand(5, 1, 1, 20, generator=chance(1))
    a = move_map(model, x, "saliency", eps=0.3)
    assert torch.equal(a.correlation, torch.ones(5))
    assert torch.equal(a.before, a.after)
    assert a.kept.all()
    assert move_map(model, x, "gradient-x-input", eps=0.3).correlation.max() < 0.95  # which holds the pixels themselves


def test_nothing_moves_within_nothing(taught):
    model, x = taught
    a = move_map(model, x, "saliency", eps=0.0)
    assert torch.equal(a.x, x)
    assert torch.equal(a.correlation, torch.ones(12))


def test_an_answer_that_hangs_by_a_thread_is_kept(taught):
    """Noise, of which the network is sure of nothing: the way down the correlation alone soon loses the answer.

    Where the answer is looked after too, the map moves to 0.08; where it is not, and iterates are only thrown away, to
    0.42.
    """
    model, _ = taught
    x = torch.rand(40, 3, 8, 12, generator=chance(3))
    a = move_map(model, x, "saliency", eps=0.3)
    assert a.kept.all()
    assert torch.equal(model(a.x).argmax(1), model(x).argmax(1))
    assert a.correlation.mean() < 0.25


def test_where_every_change_loses_the_answer_the_picture_stays():
    """Class 1 within a thousandth of 0.5 alone."""
    model = rectified([[1.0], [1.0], [0.0]], [[0.0, 0.0, 1.0], [1000.0, -2000.0, 0.0]], [-0.499, -0.5, 0.5])
    x = torch.full((3, 1, 1, 1), 0.5)
    assert torch.equal(model(x).argmax(1), torch.ones(3, dtype=torch.long))
    a = move_map(model, x, eps=0.3, steps=2)
    assert torch.equal(a.x, x)
    assert a.kept.all()
    assert torch.equal(a.correlation, torch.ones(3))


def test_a_batch_is_its_pictures_and_a_seed_repeats(taught):
    model, x = taught
    x = x[:4]
    whole = move_map(model, x, "grad-cam", eps=0.05, steps=5)
    alone = torch.cat([move_map(model, x[i : i + 1], "grad-cam", eps=0.05, steps=5).x for i in range(4)])
    order = torch.tensor([2, 0, 3, 1])
    permuted = torch.empty_like(alone)
    permuted[order] = move_map(model, x[order], "grad-cam", eps=0.05, steps=5, batch=3).x
    for other in alone, permuted:
        torch.testing.assert_close(other, whole.x, rtol=1e-4, atol=1e-5)
    torch.rand(3)
    assert torch.equal(move_map(model, x, "grad-cam", eps=0.05, steps=5).x, whole.x)
    assert not torch.equal(move_map(model, x, "grad-cam", eps=0.05, steps=5, seed=1).x, whole.x)


def test_more_steps_never_move_the_followed_map_less(taught):
    model, x = taught
    few, many = (move_map(model, x, "saliency", eps=0.05, step=0.01, steps=n).correlation for n in (3, 9))
    assert bool((many <= few + 1e-6).all())
    assert many.mean() < few.mean()


def test_the_model_is_left_as_it_was_also_after_an_exception(taught):
    model, x = taught
    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(0)
        if len(calls) == 4:
            raise KeyError("in the middle")

    model.net.train()
    model.net[0].weight.requires_grad_(False)
    modules = list(model.net.modules())
    state = {k: v.clone() for k, v in model.net.state_dict().items()}
    try:
        move_map(model, x[:2], "grad-cam", eps=0.05, steps=2)
        handle = model.net[7].register_forward_hook(fail)
        with pytest.raises(Refused, match="in the middle"):
            move_map(model, x[:2], "grad-cam", eps=0.05, steps=2)
        handle.remove()
        assert list(model.net.modules()) == modules
        assert model.net.training
        assert not model.net[0].weight.requires_grad
        assert model.net[2].weight.requires_grad
        assert all(torch.equal(v, state[k]) for k, v in model.net.state_dict().items())
        assert not any(m._forward_hooks for m in modules)
    finally:
        model.net.eval()
        model.net[0].weight.requires_grad_(True)


@pytest.mark.parametrize(
    "call", ["saliency", "saliency(absolute=false)", "gradient-x-input(reference=0.5)", "grad-cam", "cam"]
)
def test_the_maps_that_are_followed_are_the_explainers_own(taught, call):
    model, x = taught
    e = explain(model, x, call, ClassScore(torch.arange(12) % 3))
    with model.undisturbed():
        asked = parse(e.method, "explainers")
        graph = graph_of(model, x[:1], asked.options.get("layer", ""))
        out, maps = differentiable_map(model, graph, x, ClassScore(torch.arange(12) % 3), asked, {})
    torch.testing.assert_close(maps.detach(), e.maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.detach(), model(x).detach(), rtol=1e-4, atol=1e-5)


def test_the_lead_rises_as_the_network_says_where_one_is_about_to_lose_it(taught):
    """From the pass that gives the map; where nobody's lead is small, no gradient is looked for."""
    model, x = taught
    target, call = ClassScore(torch.arange(12) % 3), parse("grad-cam(layer=4)", "explainers")
    lead = Margin(target.index)
    with model.undisturbed():
        graph = graph_of(model, x[:1], "4")
        margin = lead(model(x))
        z = x[torch.tensor([0, 1, 2, 0, 1, 2, 9, 10, 11, 9, 10, 11])[torch.randperm(12, generator=chance(1))]]
        ranks = torch.zeros(12, 8, 12)
        out, maps, tight, rise, slope = maps_and_lead(model, graph, z, target, call, lead, margin, ranks)
        assert slope is None
        assert torch.equal(tight, lead(model(z)) < 0.2 * margin)
        assert 0 < tight.sum() < 12
        p = z.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(lead(model(p)).sum(), p)
        torch.testing.assert_close(rise, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(out, model(z), rtol=1e-4, atol=1e-5)
        _, plain = differentiable_map(model, graph, z, target, call, {})
        torch.testing.assert_close(maps, plain.detach())
        assert maps_and_lead(model, graph, x, target, call, lead, margin, ranks).rise is None


def test_correlations_with_known_ranks_are_spearmans():
    """Those of scipy; 1 where nothing moved, constant or not, and 0 where one of two that differ is constant."""
    clean = torch.rand(5, 6, 7, generator=chance(0)).round(decimals=1)
    maps = torch.rand(5, 6, 7, generator=chance(1)).round(decimals=1)
    clean[1:3] = 0.5
    maps[2], maps[3], maps[4] = clean[2], 0.25, clean[4]
    found = rank_correlations(clean, centred_ranks(clean), maps)
    assert found.tolist() == pytest.approx([rank(clean[0], maps[0]), 0, 1, 0, 1], abs=1e-6)


def test_the_way_down_is_the_slope_of_the_correlation():
    """By differences of the softplus network's correlation, in double precision."""
    model = rectified([[3.0, 1.0, -2.0, 0.5], [-1.0, 2.0, 1.0, -1.5]], [[1.0, 0.2], [0.2, 1.0]], [-0.3, 0.2])
    model.net.double()
    x = torch.rand(1, 1, 1, 4, generator=chance(3), dtype=torch.double)
    target, call = ClassScore(torch.tensor([0])), parse("gradient-x-input", "explainers")
    ranks = torch.tensor([[[-0.5, 0.5, 0.5, -0.5]]], dtype=torch.double)

    def soft(z: Tensor, usual: Tensor) -> Tensor:
        first, second = model.net[1], model.net[3]
        a = (first.weight @ z.flatten() + first.bias) * (10 / usual)
        p = z.clone().requires_grad_()
        a = (first.weight @ p.flatten() + first.bias) * (10 / usual)
        score = (second.weight @ (nn.functional.softplus(a) * usual / 10))[0]
        return (torch.autograd.grad(score, p)[0] * z).detach().flatten()

    def alike(z: Tensor, usual: Tensor, middling: Tensor) -> float:
        m = soft(z, usual)
        even = m / (m.abs() + middling)
        even = even - even.mean()
        return float((even * ranks.flatten()).sum() / even.norm())

    with model.undisturbed():
        graph = graph_of(model, x)
        usual = (model.net[1].weight @ x.flatten() + model.net[1].bias).abs().mean()
        g = correlation_gradient(model, graph, x, target, call, ranks, 10.0)
        middling = soft(x, usual).abs().mean()
        for i in range(4):
            step = torch.zeros_like(x)
            step[..., i] = 1e-6
            slope = (alike(x + step, usual, middling) - alike(x - step, usual, middling)) / 2e-6
            # the softplus is as sharp as at x, and the map's middling magnitude is held: neither has a slope
            assert float(g[..., i]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    "method", ["layer-cam(layer=4)", "hires-cam(layer=4)", "grad-cam++(layer=4)", "score-cam(layer=4)"]
)
def test_what_weights_a_layer_by_the_class_is_moved_through_grad_cam_there(taught, method):
    model, x = taught
    a = move_map(model, x, method, eps=0.1, steps=6)
    assert (a.through, a.method) == ("grad-cam(layer=4)", method)
    other = move_map(model, x, method, eps=0.1, steps=6, through="gradient-x-input")
    assert a.correlation.mean() < other.correlation.mean()


def test_a_cam_is_followed_itself_by_one_pass_a_step(taught):
    model, x = taught
    a = move_map(model, x, "cam", eps=0.1, steps=6)
    assert a.through == "cam(layer=4)"
    assert a.kept.all()
    other = move_map(model, x, "cam", eps=0.1, steps=6, through="gradient-x-input")
    assert a.correlation.mean() < other.correlation.mean() - 0.1  # which is not aimed at this map
    assert a.forwards == 8  # the clean picture, six steps from a random point, and the last look
    assert a.forwards < other.forwards


def test_the_way_down_of_a_cam_is_the_slope_of_its_correlation():
    """By differences of the network's own map, in double precision."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    model = Classifier(net.double().eval(), Preprocess((4, 5), (0.5,), (0.25,)), ("a", "b"), "pooled")
    x = torch.rand(1, 1, 4, 5, generator=chance(0), dtype=torch.double)
    target, call = ClassScore(torch.tensor([1])), parse("cam(layer=1)", "explainers")
    ranks = centred_ranks(torch.rand(1, 4, 5, generator=chance(1)))

    def alike(z: Tensor, usual: Tensor) -> float:
        a = net[:2](model.normalised(z))
        m = (net[4].weight[1].view(-1, 1, 1) * a).sum(1).flatten().detach()
        even = m / (m.abs() + usual)
        even = even - even.mean()
        return float((even * ranks.flatten()).sum() / even.norm())

    with model.undisturbed():
        graph = graph_of(model, x, "1")
        lead = Margin(target.index)
        seen = maps_and_lead(model, graph, x, target, call, lead, lead(model(x)), ranks)
        usual = (net[4].weight[1].view(-1, 1, 1) * net[:2](model.normalised(x))).sum(1).abs().mean().detach()
        assert seen.slope is not None
        for i in range(20):
            step = torch.zeros_like(x)
            step.view(-1)[i] = 1e-6
            slope = (alike(x + step, usual) - alike(x - step, usual)) / 2e-6
            assert float(seen.slope.view(-1)[i]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_the_softplus_comes_to_the_relu_and_has_a_second_slope(taught):
    model, x = taught
    with model.undisturbed():
        graph = graph_of(model, x[:1])
        assert sum(open_range(n) is not None for n in graph.nodes) == 2
        z = model.normalised(x)
        sharp, soft = (graph(z, second_order_rules(b)) for b in (1e4, 1.0))
        torch.testing.assert_close(sharp, graph(z), rtol=1e-3, atol=1e-3)
        assert (model.net[:4](30 * z) > 6).any()  # where the ReLU6 is cut off above as well
        torch.testing.assert_close(graph(30 * z, second_order_rules(1e4)), graph(30 * z), rtol=1e-3, atol=1e-2)
        assert (soft - graph(z)).abs().max() > 0.1
        ranks = centred_ranks(explain(model, x, "saliency", ClassScore(0)).maps)
        ways = [
            correlation_gradient(model, graph, x, ClassScore(0), parse("saliency", "explainers"), ranks, beta)
            for beta in (10.0, 1e12)
        ]
    assert bool((ways[0].flatten(1).abs().amax(1) > 0).all())
    assert float(ways[1].abs().max()) < 1e-3 * float(ways[0].abs().max())  # a ReLU hides it


def test_what_cannot_be_differentiated_is_moved_through_another_map(taught):
    model, x = taught
    a = move_map(model, x[:3], "occlusion(window=3, stride=3)", eps=0.05, steps=3)
    assert (a.through, a.method) == ("gradient-x-input", "occlusion(window=3, stride=3)")
    torch.testing.assert_close(a.after, explain(model, a.x, a.method, a.target).maps)
    b = move_map(model, x[:3], "occlusion(window=3, stride=3)", eps=0.05, steps=3, through="saliency")
    assert b.through == "saliency"
    assert not torch.equal(a.x, b.x)


def test_values_that_cannot_be(taught):
    model, x = taught
    for options in {"eps": 1.5}, {"eps": -0.1}, {"steps": 0}, {"step": 0.0}, {"beta": 0.0}, {"through": "lime"}:
        with pytest.raises(Refused, match=next(iter(options))):
            move_map(model, x[:1], **options)
    with pytest.raises(Refused, match="pixels"):
        move_map(model, x * 3)


# --- the check --------------------------------------------------------------------------------------------------------


def test_auc_and_roc_by_hand():
    assert auc([0.0, 0.0], [1.0]) == 1.0
    assert auc([1.0], [0.0]) == 0.0
    assert auc([0.5], [0.5, 0.5]) == 0.5
    assert auc([0.1, 0.4, 0.35], [0.8, 0.3]) == pytest.approx(4 / 6)
    assert roc([0.1, 0.4, 0.35], [0.8, 0.3]) == [0.5, 0.5, 1.0, 1.0]
    rng = np.random.default_rng(0)
    clean, attacked = rng.integers(0, 9, 30).tolist(), rng.integers(2, 12, 20).tolist()
    truth = [0] * 30 + [1] * 20
    assert auc(clean, attacked) == pytest.approx(sklearn.metrics.roc_auc_score(truth, clean + attacked))
    false, true, _ = sklearn.metrics.roc_curve(truth, clean + attacked)
    best = [max(t for f, t in zip(false, true, strict=True) if f <= k / 30 + 1e-9) for k in range(31)]
    assert roc(clean, attacked) == pytest.approx(best)


def test_the_interval_of_auc_covers_it_and_narrows():
    rng = np.random.default_rng(1)

    def pairs(n: int) -> list[tuple[float, float | None]]:
        return [(float(rng.normal()), float(rng.normal(1)) if i % 5 else None) for i in range(n)]

    few, many = pairs(15), pairs(200)
    for drawn in few, many:
        low, high = auc_interval(drawn, 0)
        assert low <= auc([c for c, _ in drawn], [a for _, a in drawn if a is not None]) <= high
        assert auc_interval(drawn, 0) == (low, high)
    a, b = auc_interval(few, 0), auc_interval(many, 0)
    assert b[1] - b[0] < a[1] - a[0]
    assert b[0] < scipy.stats.norm.cdf(1 / 2**0.5) < b[1]  # two normals one apart
    assert auc_interval([(0.0, 1.0)] * 6 + [(0.0, None)] * 9, 0) is None


def test_likeness_by_hand():
    a = torch.arange(100.0).view(10, 10)
    assert likeness(a, a) == pytest.approx((1.0, 1.0, 1.0))
    rank, _, top = likeness(a, -a)
    assert (rank, top) == (pytest.approx(-1.0), 0.0)
    assert likeness(a, torch.ones(10, 10)) == (0.0, 0.0, 0.0)
    b = a.clone()
    b[9, :5] = -1  # five of the ten highest are gone
    assert overlap(a.numpy(), b.numpy()) == 0.5


def test_the_defenders_copy_is_smoothed():
    x = torch.rand(2, 3, 6, 7, generator=chance(0))
    kernel = torch.tensor([1.0, 2.0, 1.0])
    weight = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(smoothed(x), nn.functional.conv2d(padded, weight, groups=3))


def case(folder: Path, model: Classifier, x: Tensor, method: str) -> Case:
    found = []
    for i, z in enumerate(x):
        path = folder / f"{i:02d}.png"
        Image.fromarray((z * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(path)
        found.append(Picture(path, path.name, (), None, {}))
    return Case(model, Pictures(folder, tuple(found)), method=method)


def test_drift_of_a_network_whose_maps_move(taught, tmp_path):
    model, x = taught
    (f,) = run_checks(
        case(tmp_path, model, x, "saliency"), parse_checks("map-stability(eps=0.2, floor=0.9, pictures=12)")
    )
    assert f.verdict == "fail", f.headline
    pixels = (x * 255).round() / 255
    a = move_map(model, pixels, "saliency", eps=0.2, steps=10)
    assert f.value == pytest.approx(float(a.correlation.mean()), abs=1e-4)
    rows = {r["what was done"]: r for r in f.tables[0].rows}
    assert list(rows) == ["random noise", "answer changed", "answer kept, map moved"]
    assert rows["random noise"]["rank correlation"] > rows["answer kept, map moved"]["rank correlation"] + 0.2
    by_picture = f.tables[2].rows
    kept = [r["answer kept, map moved"] for r in by_picture]
    assert kept == sorted(kept)
    assert f.value == pytest.approx(np.mean(kept))
    area = {r["pictures"]: r for r in f.tables[1].rows}["answer kept, map moved"]
    clean, moved = ([r[f"drift when {k}"] for r in by_picture] for k in ("clean", "moved"))
    assert area["area under the ROC curve"] == pytest.approx(auc(clean, moved))
    copies = explain(model, smoothed(pixels), "saliency", a.target).maps
    wanted = [1 - rank(p, q) for p, q in zip(a.before, copies, strict=True)]
    assert sorted(clean) == pytest.approx(sorted(wanted), abs=1e-4)
    assert [e.figure.name for e in f.evidence] == [f"map-stability-{k}.png" for k in range(1, 7)]
    assert [g.name for g in f.figures] == ["map-stability-roc.svg"]


def test_drift_passes_where_no_map_can_move_and_is_undecided_in_between(tmp_path):
    """The gradient of a linear network is everywhere the same; in between it hangs on what is asked for."""
    layer = nn.Conv2d(3, 2, (8, 12))
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=chance(0)))
    model = Classifier(nn.Sequential(layer, nn.Flatten()), Preprocess((8, 12), (0.0,) * 3, (1.0,) * 3), ("a", "b"))
    x = torch.rand(8, 3, 8, 12, generator=chance(1))
    (f,) = run_checks(case(tmp_path, model, x, "saliency"), parse_checks("map-stability"))
    assert (f.verdict, f.value, f.interval, f.n) == ("pass", 1.0, (1.0, 1.0), 8)
    areas = [r["area under the ROC curve"] for r in f.tables[1].rows]
    assert areas == [0.5] * len(areas)  # nothing drifts, so drift tells nothing
    (f,) = run_checks(case(tmp_path, model, x, "gradient-x-input"), parse_checks("map-stability(eps=0.2)"))
    low, high = f.interval
    assert -1 < low < f.value < high < 1
    for floor, verdict in ((low + high) / 2, "warn"), (low - 0.01, "pass"), (high + 0.01, "fail"):
        (g,) = run_checks(
            case(tmp_path, model, x, "gradient-x-input"), parse_checks(f"map-stability(eps=0.2, floor={floor})")
        )
        assert g.verdict == verdict


def test_drift_leaves_out_what_is_answered_otherwise_after_all(taught, tmp_path, monkeypatch):
    """Their maps tell nothing; without any other picture nothing does."""
    model, x = taught
    check = parse_checks("map-stability(eps=0.2, pictures=12)")
    (whole,) = run_checks(case(tmp_path, model, x, "saliency"), check)
    turned: list[int] = []

    def move(*args: Any, **options: Any) -> MovedMap:
        found = move_map(*args, **options)
        return replace(found, kept=torch.arange(12) >= len(turned))

    monkeypatch.setattr(map_stability, "move_map", move)
    turned += [0, 1, 2]
    (f,) = run_checks(case(tmp_path, model, x, "saliency"), check)
    assert f.n == 9
    lost = {r["picture"] for r in whole.tables[2].rows} - {r["picture"] for r in f.tables[2].rows}
    assert len(lost) == 3
    kept = [r["answer kept, map moved"] for r in whole.tables[2].rows if r["picture"] not in lost]
    assert f.value == pytest.approx(np.mean(kept))
    assert f.interval[0] < f.value < f.interval[1]
    assert any(note.startswith("3 pictures are left out: the answer") for note in f.notes)
    assert not any("left out: the answer" in note for note in whole.notes)
    turned += range(9)
    (f,) = run_checks(case(tmp_path, model, x, "saliency"), check)
    assert (f.verdict, f.value, f.headline) == (
        "note",
        None,
        "No answer stays the same (12 pictures), so no map can be compared.",
    )


def test_drift_refuses_before_a_picture_is_read(taught, tmp_path):
    model, x = taught
    here = case(tmp_path, model, x[:1], "saliency")
    (tmp_path / "00.png").unlink()
    for words in "eps=0", "eps=2", "floor=1.5", "steps=0":
        with pytest.raises(Refused, match=words.partition("=")[0]):
            next(run_checks(here, parse_checks(f"map-stability({words})")))


def test_the_one_who_was_best_is_kept(taught):
    """The least correlation among all iterates that keep the answer, whatever comes after it."""
    model, x = taught
    seen = []
    with model.undisturbed():
        call = parse("saliency", "explainers")
        target = ClassScore(model(x[:4]).argmax(1))
        for steps in range(1, 8):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                z = moved_pictures(model, x[:4], target, call, 0.05, steps, 0.04, "linf", 10.0)
            maps = explain(model, z, call, target).maps
            clean = explain(model, x[:4], call, target).maps
            seen.append([rank(p, q) for p, q in zip(clean, maps, strict=True)])
    values = np.array(seen)
    assert (np.diff(values, axis=0) <= 1e-5).all()
