"""The numbers of the gradient explainers, of those that run another one inside, and of the controls."""

import math
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from torch import Tensor, nn

from clearsight.auditing.case import Case
from clearsight.core import diagnostics, rng
from clearsight.core.catalogue import catalogue, parse, split_calls
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.data.datasets import folder
from clearsight.errors import Refused
from clearsight.explainers.common.gradient import WORTH, many_passes, pixel_gradients
from clearsight.explainers.common.path import path_gradients
from clearsight.explaining.sheet import explanation_sheet
from clearsight.internals import recording
from clearsight.runner.run import explain
from clearsight.testing import linear

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)
SIGNED = "saliency(absolute=false)"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def plane() -> tuple[Classifier, Tensor]:
    """A linear model of 4 × 5 pictures with normalisation, and its weights (2, 3, 4, 5) per pixel in [0, 1]."""
    weight = torch.randn(2, 3, 4, 5, generator=seeded(0))
    layer = nn.Linear(60, 2)
    layer.weight.data, layer.bias.data = weight.flatten(1), torch.tensor([0.1, -0.2])
    net = nn.Sequential(nn.Flatten(), layer)
    return Classifier(net, Preprocess((4, 5), MEAN, STD), ("a", "b")), weight / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def bent() -> Classifier:
    """A smooth network of 8 × 12 pictures whose gradient is different everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(6, 5, 3, padding=1), nn.Softplus(),
            nn.Flatten(), nn.Linear(5 * 4 * 6, 3),
        )  # fmt: skip
    for p in net[5].parameters():
        p.data *= 4
    return Classifier(net.eval(), Preprocess((8, 12), MEAN, STD), tuple("abc"))


@pytest.fixture
def pictures() -> Tensor:
    """Five pictures, each with a range of its own."""
    x = torch.rand(5, 3, 8, 12, generator=seeded(1))
    return 0.5 + (x - 0.5) * torch.linspace(0.2, 1, 5).view(-1, 1, 1, 1)


def gradient(model: Classifier, x: Tensor, k: int) -> Tensor:
    """d logit k / d pixels of one picture (C, *S), by plain autograd."""
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(z[None])[0, k], z)
    return g


# --- one gradient -----------------------------------------------------------------------------------------------------


def test_saliency_with_its_sign_is_the_gradient_summed_over_the_channels(bent, pictures):
    found = explain(bent, pictures, SIGNED, ClassScore(1))
    wanted = torch.stack([gradient(bent, x, 1).sum(0) for x in pictures])
    torch.testing.assert_close(found.maps, wanted)
    largest = torch.stack([gradient(bent, x, 1).abs().amax(0) for x in pictures])
    torch.testing.assert_close(explain(bent, pictures, "saliency", ClassScore(1)).maps, largest)


@pytest.mark.parametrize("reference", [0.0, 0.4])
def test_gradient_x_input_of_a_linear_model_is_weight_times_distance(plane, reference):
    (model, w), x = plane, torch.rand(2, 3, 4, 5, generator=seeded(2))
    found = explain(model, x, f"gradient-x-input(reference={reference})", ClassScore([1, 0])).maps
    torch.testing.assert_close(found, (w[[1, 0]] * (x - reference)).sum(1))


def test_gradient_x_input_replica(bent, pictures):
    found = explain(bent, pictures, "gradient-x-input(reference=0.3)", ClassScore(2)).maps
    wanted = torch.stack([((x - 0.3) * gradient(bent, x, 2)).sum(0) for x in pictures])
    torch.testing.assert_close(found, wanted)


# --- whether a map is drawn with its sign -----------------------------------------------------------------------------


def test_maps_with_negative_values_are_signed_whatever_the_method_claims(bent, pictures):
    for call, signed in (
        ("saliency", False),
        (SIGNED, True),
        ("smooth-grad(samples=2)", True),
        ("var-grad(samples=2)", False),
        (f"var-grad(samples=2, inner={SIGNED})", False),
    ):
        assert explain(bent, pictures, call, ClassScore(0)).signed == signed, call


def test_a_saliency_map_with_its_sign_is_drawn_with_its_sign(bent, pictures):
    e = explain(bent, pictures[:1], SIGNED, ClassScore(0))
    against = (e.maps[0] < 0).sum()
    assert 0 < against < e.maps[0].numel()
    ink = np.asarray(explanation_sheet([e]).convert("RGB")).astype(int)
    purple = (ink[..., 2] > ink[..., 1] + 60) & (ink[..., 0] > ink[..., 1])
    plain = np.asarray(explanation_sheet([explain(bent, pictures[:1], "saliency", ClassScore(0))]).convert("RGB"))
    none = (plain[..., 2].astype(int) > plain[..., 1].astype(int) + 60) & (plain[..., 0] > plain[..., 1])
    assert purple.sum() > 4 * none.sum() + 100


def test_a_case_of_saliency_with_its_sign_is_signed(workshop):
    from workshop import factory

    for method, signed in (("saliency", False), (SIGNED, True), ("smooth-grad(samples=2)", True)):
        case = Case(factory(), folder("photos"), method=method)
        case.maps([0], case.pixels([0]))
        assert case.signed == signed, method


# --- integrated gradients ---------------------------------------------------------------------------------------------


def test_integrated_gradients_keep_their_residual(bent, pictures):
    with torch.no_grad():
        gap = bent(pictures)[:, 2] - bent(torch.full_like(pictures, 0.2))[:, 2]
    sizes = []
    for steps in (1, 50):
        e = explain(bent, pictures, f"integrated-gradients(steps={steps}, baseline=0.2)", ClassScore(2), batch=2)
        residual = e.diagnostics["completeness residual"]
        torch.testing.assert_close(residual, e.maps.sum((1, 2)) - gap, rtol=1e-3, atol=1e-5)
        sizes.append(float(residual.abs().max()))
    assert sizes[1] < sizes[0] / 20


@pytest.mark.parametrize("steps", [0, -2])
def test_integrated_gradients_refuse(bent, pictures, steps):
    with pytest.raises(Refused, match="steps must be at least 1"):
        explain(bent, pictures, f"integrated-gradients(steps={steps})", ClassScore(0))


def test_a_residual_that_nobody_reads_costs_no_passes(bent, pictures):
    e = explain(bent, pictures, "smooth-grad(inner=integrated-gradients(steps=3), samples=4)", ClassScore(0))
    assert (e.forwards, e.backwards) == (12, 12)
    assert not e.diagnostics
    assert not diagnostics.wanted()


def test_integrated_gradients_before_the_channels_are_summed(bent, pictures):
    """A path from another picture for each one: what several methods stand on."""
    begin = torch.rand(5, 3, 8, 12, generator=seeded(7))
    found = path_gradients(bent, pictures, ClassScore([0, 1, 2, 0, 1]), begin, 4)
    for i, (x, b) in enumerate(zip(pictures, begin, strict=True)):
        steps = [gradient(bent, b + (k + 0.5) / 4 * (x - b), i % 3) for k in range(4)]
        torch.testing.assert_close(found[i], (x - b) * torch.stack(steps).mean(0), rtol=1e-4, atol=1e-5)
    one = path_gradients(bent, pictures, ClassScore(1), torch.tensor(0.3), 3)
    same = path_gradients(bent, pictures, ClassScore(1), torch.full((1, 3, 1, 1), 0.3), 3)
    torch.testing.assert_close(one, same)


# --- smooth-grad and var-grad -----------------------------------------------------------------------------------------


def copies(x: Tensor, name: str, samples: int, noise: float, seed: int = 0) -> Tensor:
    """The noisy copies of one picture (C, *S), as the method of that name draws them one after the other."""
    sigma = noise * (x.max() - x.min())
    with rng.seeded(seed, x[None], name):
        return torch.stack([x + sigma * rng.normal(x[None])[0] for _ in range(samples)])


def test_smooth_grad_replica(bent, pictures):
    """The paper's mean of gradients, one noisy copy at a time; 7 copies of 5 pictures do not fill passes of 16."""
    found = explain(bent, pictures, "smooth-grad(samples=7, noise=0.3)", ClassScore(1), batch=3).maps
    for i, x in enumerate(pictures):
        noisy = copies(x, "smooth-grad", 7, 0.3)
        assert noisy.min() < x.min()
        wanted = torch.stack([gradient(bent, z, 1).sum(0) for z in noisy]).mean(0)
        torch.testing.assert_close(found[i], wanted, rtol=1e-4, atol=1e-5)


def test_var_grad_replica(bent, pictures):
    found = explain(bent, pictures, "var-grad(samples=7, noise=0.3)", ClassScore(1), batch=3).maps
    for i, x in enumerate(pictures):
        maps = torch.stack([gradient(bent, z, 1).sum(0) for z in copies(x, "var-grad", 7, 0.3)]).double()
        torch.testing.assert_close(found[i].double(), maps.var(0), rtol=1e-4, atol=1e-7)
    assert found.min() >= 0


class Offset(nn.Module):
    """Two logits: a plane far steeper than it is bent.  Its gradient is 1,000 + x at every pixel x."""

    def forward(self, x: Tensor) -> Tensor:
        score = (1000 * x + x.square() / 2).flatten(1).sum(1)
        return torch.stack([score, -score], 1)


@pytest.fixture
def steep() -> Classifier:
    return Classifier(Offset(), Preprocess((4, 40), (0.0,), (1.0,)), ("a", "b"))


def test_var_grad_of_a_paraboloid_is_the_noises_variance(steep):
    """So far from 0 the mean of squares less the square of the mean has no digit left in float32."""
    x = torch.rand(1, 1, 4, 40, generator=seeded(0))
    sigma = 0.1 * float(x.max() - x.min())
    found = explain(steep, x, "var-grad(samples=400, noise=0.1)", ClassScore(0)).maps
    assert float(found.mean()) == pytest.approx(sigma**2, rel=0.02)  # 160 pixels, each within 7 %
    few = [explain(steep, x, "var-grad(samples=2, noise=0.1)", ClassScore(0), seed=s).maps.mean() for s in range(40)]
    assert float(torch.stack(few).mean()) == pytest.approx(sigma**2, rel=0.08)  # unbiased: no less with few samples


def test_smooth_grad_of_a_paraboloid_is_its_gradient(steep):
    x = torch.rand(1, 1, 4, 40, generator=seeded(0))
    found = explain(steep, x, "smooth-grad(samples=100, noise=0.2)", ClassScore(1)).maps
    error = found + 1000 + x[:, 0]
    sigma = 0.2 * float(x.max() - x.min())
    assert float(error.std()) == pytest.approx(sigma / 10, rel=0.2)


def test_smooth_grad_without_noise_is_the_inner_method(bent, pictures):
    for inner in ("saliency", "integrated-gradients(steps=3)", "grad-cam(layer=1)", "occlusion(window=4)"):
        smooth = explain(bent, pictures, f"smooth-grad(inner={inner}, samples=3, noise=0)", ClassScore(2)).maps
        torch.testing.assert_close(smooth, explain(bent, pictures, inner, ClassScore(2)).maps, rtol=1e-4, atol=1e-5)


def test_smooth_grad_of_a_flat_picture_has_no_noise(bent):
    x = torch.full((1, 3, 8, 12), 0.5)
    smooth = explain(bent, x, "smooth-grad(samples=3)", ClassScore(2)).maps
    torch.testing.assert_close(smooth, explain(bent, x, SIGNED, ClassScore(2)).maps, rtol=1e-4, atol=1e-5)
    assert explain(bent, x, "var-grad(samples=3)", ClassScore(2)).maps.max() < 1e-9


@pytest.mark.parametrize("call", ["smooth-grad", "var-grad"])
@pytest.mark.parametrize(
    "inner", ["random", "smooth-grad(samples=3)", "gradient-shap(samples=3, noise=0.1)", "var-grad(samples=3)"]
)
def test_smooth_grad_and_var_grad_of_chance_belong_to_the_picture(bent, pictures, call, inner):
    """What the inner method draws must not depend on which copies share a pass."""
    call = f"{call}(inner={inner}, samples=7)"
    target = ClassScore([0, 1, 2, 0, 1])
    whole = explain(bent, pictures, call, target).maps
    for i in range(5):
        alone = explain(bent, pictures[i : i + 1], call, ClassScore(i % 3)).maps
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-3, atol=1e-5)
    assert not torch.equal(explain(bent, pictures, call, target, seed=1).maps, whole)


def test_smooth_grad_of_random_maps_averages_independent_ones(bent, pictures):
    one = explain(bent, pictures, "random", ClassScore(0)).maps.std()
    many = explain(bent, pictures, "smooth-grad(inner=random, samples=25)", ClassScore(0)).maps.std()
    assert float(many) == pytest.approx(float(one) / 5, rel=0.15)


def test_smooth_grad_names_the_layer_of_the_method_inside(small, x):
    e = explain(small, x, "smooth-grad(inner=grad-cam, samples=2)", ClassScore(0))
    assert e.method == "smooth-grad(inner=grad-cam(layer=5), samples=2)"
    deep = explain(small, x, "smooth-grad(inner=smooth-grad(inner=grad-cam, samples=2), samples=2)", ClassScore(0))
    assert deep.method == "smooth-grad(inner=smooth-grad(inner=grad-cam(layer=5), samples=2), samples=2)"
    assert deep.forwards == 4
    torch.testing.assert_close(explain(small, x, deep.method, ClassScore(0)).maps, deep.maps)
    plain = explain(small, x, "smooth-grad(samples=2)", ClassScore(0))
    assert plain.method == "smooth-grad(samples=2, inner=saliency(absolute=false))"


@pytest.mark.parametrize("name", ["smooth-grad", "var-grad"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("inner=salency", "saliency"),
        ("inner=saliency(abslute=false)", "absolute"),
        ("inner=smooth-grad(inner=salency)", "saliency"),
        ("samples=0", "samples=0"),
        ("samples=-1", "samples=-1"),
        ("noise=-0.1", "noise, .*, must be at least 0, not -0.1"),
    ],
)
def test_smooth_grad_and_var_grad_refuse(bent, pictures, name, options, told):
    with pytest.raises(Refused, match=told):
        explain(bent, pictures, f"{name}({options})", ClassScore(0))


def test_var_grad_needs_two_samples(bent, pictures):
    with pytest.raises(Refused, match="samples must be at least 2"):
        explain(bent, pictures, "var-grad(samples=1)", ClassScore(0))


def test_an_inner_method_of_ones_own_that_gives_no_map_is_refused(bent, pictures, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def bad(model, x, target):\n    return x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=r"bad as inner method must return one map"):
        explain(bent, pictures, "smooth-grad(inner=./mine.py:bad, samples=2)", ClassScore(0))


@pytest.mark.parametrize(
    "inner",
    [
        "saliency",
        SIGNED,
        "smooth-grad(inner=smooth-grad(inner=integrated-gradients(steps=5, baseline=0.5), samples=2))",
        'smooth-grad(inner="saliency(absolute=false)")',
        "grad-cam(layer='a b')",
        "./my file.py:cam(k=3)",
        "./mine.py:cam(k=3)",
        "a)(b",
        "a(b)),((c)",
        "a(b",
        "=(a)",
    ],
)
def test_calls_inside_calls_are_read_back(inner):
    call = parse("smooth-grad", "explainers").with_options(inner=inner, samples=3)
    assert parse(str(call), "explainers") == call
    assert split_calls(f"grad-cam, {call}, saliency") == ["grad-cam", str(call), "saliency"]


def test_calls_inside_calls_need_no_quotes():
    deep = f"smooth-grad(inner=smooth-grad(inner={SIGNED}, samples=2), noise=0.1)"
    call = parse(deep, "explainers")
    assert str(call) == deep
    assert parse(call.options["inner"], "explainers").options == {"inner": SIGNED, "samples": 2}
    assert parse('smooth-grad(inner="saliency(absolute=false)")', "explainers").options == {"inner": SIGNED}
    with pytest.raises(Refused, match="closed"):
        split_calls("a), (b")


def test_seeding_seeds_no_gpu_that_nobody_uses(pictures, monkeypatch):
    """Its generator is given back by nobody: what is kept for it to begin with would be ours instead of the user's."""
    seeds = []
    for device in (torch.cuda, torch.cuda.random, torch.xpu, torch.xpu.random):
        monkeypatch.setattr(device, "manual_seed_all", seeds.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    with rng.seeded(5, pictures):
        assert torch.equal(torch.rand(3), expected)
    assert not seeds
    torch.manual_seed(5)
    assert seeds, "torch.manual_seed has changed: it may serve again"


def test_draws_of_versions_do_not_depend_on_their_order(pictures):
    rows, numbers = torch.tensor([1, 1, 0]), torch.tensor([4, 5, 4])
    with rng.seeded(3, pictures):
        with rng.for_versions(rows, numbers):
            first, second = rng.uniform(pictures[rows]), rng.normal(pictures[rows])
        rng.uniform(pictures)
        with rng.for_versions(rows.flip(0), numbers.flip(0)):
            again, more = rng.uniform(pictures[rows.flip(0)]), rng.normal(pictures[rows.flip(0)])
        with rng.for_versions(rows):  # without numbers, they share what belongs to their picture
            shared = rng.uniform(pictures[rows])
    assert torch.equal(first, again.flip(0))
    assert torch.equal(second, more.flip(0))
    assert len({float(v) for v in [*first[:, 0, 0, 0], *shared[:, 0, 0, 0]]}) == 6
    with rng.seeded(4, pictures), rng.for_versions(rows, numbers):
        assert not torch.equal(rng.uniform(pictures[rows]), first)


# --- guided integrated gradients --------------------------------------------------------------------------------------


def guided(
    model: Classifier, x: Tensor, k: int, steps: int, fraction: float, max_dist: float, baseline: float
) -> np.ndarray:
    """One picture, in NumPy, value by value, as explanations.md has the algorithm; infinities mark who has arrived."""
    end = x.double().numpy().ravel()
    begin = np.full_like(end, np.float32(baseline))
    here, attribution = begin.copy(), np.zeros_like(end)
    whole = sum(abs(e - b) for e, b in zip(end, begin, strict=True))
    for s in range(steps):
        at = torch.from_numpy(here).float().view_as(x)
        g = gradient(model, at, k).double().numpy().ravel()
        alpha = (s + 1) / steps
        low, high = max(alpha - max_dist, 0.0), min(alpha + max_dist, 1.0)
        x_min, x_max = begin + low * (end - begin), begin + high * (end - begin)
        wanted = whole * (1 - alpha)
        gamma = math.inf
        while gamma > 1:
            old = here.copy()
            for i in range(len(here)):
                if abs(here[i] - begin[i]) < abs(x_min[i] - begin[i]):
                    here[i] = x_min[i]
            now = np.abs(end - here).sum()
            if math.isclose(now, wanted, rel_tol=1e-9, abs_tol=1e-9):
                attribution += (here - old) * g
                break
            size = np.where(here == x_max, math.inf, np.abs(g))
            bar = np.quantile(size, fraction, method="lower")
            chosen = [i for i in range(len(here)) if size[i] <= bar and size[i] != math.inf]
            room = sum(abs(here[i] - x_max[i]) for i in chosen)
            gamma = (now - wanted) / room
            for i in chosen:
                here[i] = x_max[i] if gamma > 1 else here[i] + gamma * (x_max[i] - here[i])
            attribution += (here - old) * g
    np.testing.assert_allclose(here, end, atol=1e-6)
    return attribution.reshape(x.shape).sum(0)


@pytest.mark.parametrize(
    ("steps", "fraction", "max_dist", "baseline"),
    [(10, 0.25, 0.02, 0.0), (7, 0.1, 0.3, 0.2), (5, 1.0, 1.0, 0.0), (4, 0.01, 0.5, 1.0), (6, 0.25, 0.0, 0.5)],
)
def test_guided_integrated_gradients_replica(bent, pictures, steps, fraction, max_dist, baseline):
    options = f"steps={steps}, fraction={fraction}, max_dist={max_dist}, baseline={baseline}"
    found = explain(bent, pictures, f"guided-integrated-gradients({options})", ClassScore([0, 1, 2, 0, 1])).maps
    for i, x in enumerate(pictures):
        wanted = torch.from_numpy(guided(bent, x, i % 3, steps, fraction, max_dist, baseline)).float()
        torch.testing.assert_close(found[i], wanted, rtol=1e-3, atol=1e-5)


def test_guided_integrated_gradients_on_the_straight_path(bent, pictures):
    """max_dist=0: integrated gradients by the rule that takes each step's gradient at its beginning."""
    found = explain(bent, pictures, "guided-integrated-gradients(steps=5, max_dist=0)", ClassScore(1)).maps
    for i, x in enumerate(pictures):
        mean = torch.stack([gradient(bent, k / 5 * x, 1) for k in range(5)]).mean(0)
        torch.testing.assert_close(found[i], (x * mean).sum(0), rtol=1e-4, atol=1e-5)
    many = explain(bent, pictures, "guided-integrated-gradients(steps=300, max_dist=0)", ClassScore(1)).maps
    limit = explain(bent, pictures, "integrated-gradients(steps=300)", ClassScore(1)).maps
    torch.testing.assert_close(many, limit, rtol=0.05, atol=2e-3)
    free = explain(bent, pictures, "guided-integrated-gradients(steps=50, max_dist=1)", ClassScore(1)).maps
    assert (free - limit).abs().max() > 0.05


def test_guided_integrated_gradients_keep_their_residual(bent, pictures):
    with torch.no_grad():
        gap = (bent(pictures) - bent(torch.full_like(pictures, 0.1)))[:, 2]
    sizes = []
    for steps in (3, 100):
        e = explain(bent, pictures, f"guided-integrated-gradients(steps={steps}, baseline=0.1)", ClassScore(2))
        residual = e.diagnostics["completeness residual"]
        torch.testing.assert_close(residual, e.maps.sum((1, 2)) - gap, rtol=1e-3, atol=1e-5)
        sizes.append(float(residual.abs().max()))
    assert sizes[1] < sizes[0] / 10


def test_guided_integrated_gradients_move_first_what_matters_least():
    """Two pixels p and q, worth 3 p + 10 p q: where p is 0, q is worth nothing, so q moves first and gets nothing."""

    class Saddle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            p, q = x.flatten(1).unbind(1)
            return torch.stack([3 * p + 10 * p * q, q], 1)

    model = Classifier(Saddle(), Preprocess((1, 2), (0.0,), (1.0,)), ("a", "b"))
    x = torch.tensor([[[[1.0, 1.0]]]])
    call = "guided-integrated-gradients(steps=100, fraction=0.1, max_dist=1)"
    found = explain(model, x, call, ClassScore(0)).maps[0, 0]
    torch.testing.assert_close(found, torch.tensor([13.0, 0.0]), rtol=0, atol=1e-3)
    straight = explain(model, x, "integrated-gradients(steps=100)", ClassScore(0)).maps[0, 0]
    torch.testing.assert_close(straight, torch.tensor([8.0, 5.0]), rtol=0, atol=1e-3)


def test_guided_integrated_gradients_of_the_baseline_itself_are_zero(bent):
    x = torch.full((2, 3, 8, 12), 0.3)
    x[1, 0, 0, 0] = 0.9
    maps = explain(bent, x, "guided-integrated-gradients(steps=4, baseline=0.3)", ClassScore(0)).maps
    assert (maps[0] == 0).all()
    assert (maps[1] != 0).sum() == 1


@pytest.mark.parametrize("bad", ["steps=0", "fraction=0", "fraction=1.1", "max_dist=-0.1", "max_dist=2"])
def test_guided_integrated_gradients_refuse(bent, pictures, bad):
    with pytest.raises(Refused, match=r"guided-integrated-gradients\(.*" + bad.partition("=")[0]):
        explain(bent, pictures, f"guided-integrated-gradients({bad})", ClassScore(0))


# --- gradient-shap ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("baseline", ["none", "0.3"])
def test_gradient_shap_replica(bent, pictures, baseline, noise):
    call = f"gradient-shap(samples=7, baseline={baseline}, noise={noise})"
    found = explain(bent, pictures, call, ClassScore(1), batch=3).maps
    for i, x in enumerate(pictures):
        sigma = noise * (x.max() - x.min())
        total = torch.zeros(8, 12)
        with rng.seeded(0, x[None], "gradient-shap"):
            chance = rng.uniform(torch.empty(1, 7, 2))[0]
            for place, grey in chance.tolist():
                grey = grey if baseline == "none" else 0.3
                end = x + sigma * rng.normal(x[None])[0] if noise else x
                total += ((end - grey) * gradient(bent, grey + place * (end - grey), 1)).sum(0)
        torch.testing.assert_close(found[i], total / 7, rtol=1e-3, atol=1e-5)


def test_gradient_shap_comes_to_integrated_gradients(bent, pictures):
    """Without noise and with one background picture, the same integral by chance: the error falls as 1 / sqrt(n)."""
    limit = explain(bent, pictures, "integrated-gradients(steps=200, baseline=0.1)", ClassScore(0)).maps

    def error(samples: int) -> float:
        call = f"gradient-shap(samples={samples}, baseline=0.1)"
        found = torch.stack([explain(bent, pictures, call, ClassScore(0), seed=s).maps for s in range(6)])
        return float((found - limit).square().mean().sqrt())

    few, many = error(4), error(100)
    assert few / many == pytest.approx(5, rel=0.4)
    assert many < 0.1 * float(limit.std())


def test_gradient_shap_of_a_linear_model_against_greys(plane):
    """The background's mean is 1/2, so what is left of weight times distance has that expectation."""
    (model, w), x = plane, torch.rand(2, 3, 4, 5, generator=seeded(2))
    found = explain(model, x, "gradient-shap(samples=2000)", ClassScore([1, 0])).maps
    torch.testing.assert_close(found, (w[[1, 0]] * (x - 0.5)).sum(1), rtol=0, atol=0.3)
    assert (found - (w[[1, 0]] * x).sum(1)).abs().max() > 1


@pytest.fixture
def shades(tmp_path, monkeypatch) -> list[Tensor]:
    """A folder of three pictures of 12 × 8 pixels, and these as the networks here see them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shades").mkdir()
    found = torch.randint(0, 256, (3, 8, 12, 3), generator=seeded(5), dtype=torch.uint8)
    for i, picture in enumerate(found):
        Image.fromarray(picture.numpy()).save(tmp_path / "shades" / f"{i}.png")
    return list(found.permute(0, 3, 1, 2) / 255)


def test_gradient_shap_against_pictures_replica(bent, pictures, shades):
    found = explain(bent, pictures, "gradient-shap(samples=9, references=shades)", ClassScore(1), batch=2).maps
    used = set()
    for i, x in enumerate(pictures):
        total = torch.zeros(8, 12)
        with rng.seeded(0, x[None], "gradient-shap"):
            for place, which in rng.uniform(torch.empty(1, 9, 2))[0].tolist():
                begin = shades[int(3 * which)]
                used.add(int(3 * which))
                total += ((x - begin) * gradient(bent, begin + place * (x - begin), 1)).sum(0)
        torch.testing.assert_close(found[i], total / 9, rtol=1e-3, atol=1e-5)
    assert used == {0, 1, 2}


def test_gradient_shap_takes_an_even_spread_of_many_pictures(bent, pictures, shades, monkeypatch):
    from clearsight.explainers.common import background

    monkeypatch.setattr(background, "MOST", 2)
    them = background.background(bent, pictures, "shades")
    torch.testing.assert_close(them, torch.stack(shades[:2]))
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save("shades/0.png")  # files are read again when they change
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save("shades/3.png")
    os.utime("shades/0.png", (1, 1))
    them = background.background(bent, pictures, "shades")
    torch.testing.assert_close(them, torch.stack([torch.zeros(3, 8, 12), shades[2]]))
    Image.fromarray(np.full((8, 12, 3), 255, np.uint8)).save("shades/0.png")
    os.utime("shades/0.png", (2, 2))
    them = background.background(bent, pictures, "shades")
    torch.testing.assert_close(them, torch.stack([torch.ones(3, 8, 12), shades[2]]))


def test_gradient_shap_refuses_pictures_that_do_not_fit(bent, shades):
    for call, told in (
        ("references=shades, baseline=0.5", "both name a background"),
        ("references=nowhere", "nowhere"),
        ("references=shades", "leave references= out"),
    ):
        with pytest.raises(Refused, match=told):
            explain(small_head(), torch.rand(1, 3, 10, 10), f"gradient-shap({call})", ClassScore(0))
    Path("shades/4.png").write_bytes(b"no picture")
    with pytest.raises(Refused, match=r"4\.png"):
        explain(bent, torch.rand(1, 3, 8, 12), "gradient-shap(references=shades)", ClassScore(0))


def small_head() -> Classifier:
    """It runs on pictures of every size."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    return Classifier(net, Preprocess((8, 12), MEAN, STD), ("a", "b"))


@pytest.mark.parametrize("bad", ["samples=0", "noise=-1"])
def test_gradient_shap_refuses(bent, pictures, bad):
    with pytest.raises(Refused, match=rf"gradient-shap\(.*{bad}"):
        explain(bent, pictures, f"gradient-shap({bad})", ClassScore(0))


# --- controls ---------------------------------------------------------------------------------------------------------


def test_centre_is_a_gaussian_in_the_middle():
    model = linear([[1.0] * 9, [0.0] * 9])
    found = explain(model, torch.rand(2, 1, 1, 9), "centre(sigma=0.3)", ClassScore(0)).maps
    wanted = [math.exp(-(((i - 4) / 9 / 0.3) ** 2) / 2) for i in range(9)]
    torch.testing.assert_close(found, torch.tensor(wanted).expand(2, 1, 9))
    assert float(found[0, 0, 4]) == 1
    for sigma in "0", "-1":
        with pytest.raises(Refused, match="above 0"):
            explain(model, torch.rand(2, 1, 1, 9), f"centre(sigma={sigma})", ClassScore(0))


@pytest.mark.parametrize("size", [(11,), (8, 12), (5, 6, 7)])
def test_centre_has_the_shape_of_the_picture(size):
    """Along every axis a share of its own side; scipy's Gaussian of one point of light, put on the same scale."""
    x = torch.zeros(1, 2, *size)
    model = Classifier(nn.Identity(), Preprocess(size, (0, 0), (1, 1)), ("a", "b"))
    found = catalogue("explainers")["centre"](model, x, None, sigma=0.2)[0]
    lines = [np.exp(-0.5 * (((np.arange(n) + 0.5) / n - 0.5) / 0.2) ** 2) for n in size]
    wanted = lines[0]
    for line in lines[1:]:
        wanted = np.multiply.outer(wanted, line)
    torch.testing.assert_close(found, torch.from_numpy(wanted).float())
    for axis in range(len(size)):
        torch.testing.assert_close(found, found.flip(axis))


@pytest.mark.parametrize("size", [(1,), (11,), (1, 5), (8, 12), (2, 2), (5, 6, 7)])
def test_edge_is_scipys_sobel(size):
    x = torch.rand(2, 3, *size, generator=seeded(0))
    found = catalogue("explainers")["edge"](None, x, None)
    for picture, m in zip(x.mean(1).double().numpy(), found, strict=True):
        slopes = [scipy.ndimage.sobel(picture, axis=a, mode="nearest") for a in range(len(size))]
        wanted = np.sqrt(sum(s**2 for s in slopes))
        np.testing.assert_allclose(m.numpy(), wanted, rtol=1e-4, atol=1e-5)


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "forwards", "backwards"),
    [
        ("gradient-x-input", 1, 1),
        (SIGNED, 1, 1),
        ("integrated-gradients(steps=7)", 9, 7),
        ("smooth-grad(samples=7)", 7, 7),
        ("var-grad(samples=7)", 7, 7),
        ("smooth-grad(inner=grad-cam(layer=1), samples=3)", 3, 3),
        ("guided-integrated-gradients(steps=7)", 9, 7),
        ("gradient-shap(samples=7)", 15, 7),
        ("gradient-shap(samples=7, baseline=0.5)", 9, 7),
        ("centre", 0, 0),
        ("edge", 0, 0),
    ],
)
def test_passes_of_gradient_explainers(bent, pictures, call, forwards, backwards):
    for batch in 16, 2:
        e = explain(bent, pictures, call, ClassScore(0), batch=batch)
        assert (e.forwards, e.backwards) == (forwards, backwards)


# --- BatchNorm, folded where it is worth it ---------------------------------------------------------------------------


def test_batch_norm_is_folded_from_as_many_passes_on_as_recording_takes(monkeypatch, pictures):
    """What is recorded is run in the network's place, which then sees none of these pictures, and gives the same."""
    monkeypatch.setattr(recording, "recordings", OrderedDict())
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.SiLU(), nn.Flatten(), nn.Linear(6 * 6 * 10, 3))
    net = nn.Sequential(*layers).eval()
    nn.init.normal_(net[1].running_mean)
    nn.init.uniform_(net[1].running_var, 0.5, 2)
    model = Classifier(net, Preprocess((8, 12), MEAN, STD), tuple("abc"))
    seen: list[int] = []

    def gradients(passes: int) -> Tensor:
        with model.undisturbed(), many_passes(model, pictures, passes):
            handle = net.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
            g = pixel_gradients(model, pictures, ClassScore(1))
            handle.remove()
        return g

    wanted = gradients(WORTH - 1)
    assert seen == [5]
    found = gradients(WORTH)
    assert seen == [5]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    gradients(WORTH - 1)  # though it is recorded by now
    assert seen == [5, 5]
    net[1] = nn.Identity()
    gradients(WORTH)  # nothing to fold
    assert seen == [5, 5, 5]
