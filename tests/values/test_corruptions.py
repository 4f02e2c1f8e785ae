"""Whether each corruption is what it is called: closed forms, replicas by NumPy, SciPy, scikit-image and Pillow."""

import io
import math
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.color
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from clearsight.attacks.spatial import even, moved
from clearsight.auditing.case import Case
from clearsight.checks.corruptions import CorruptedAnswers, accuracy_drop, corruption_calls, worst_first
from clearsight.core import rng
from clearsight.core.catalogue import Call, catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.statistics import bootstrap, wilson
from clearsight.core.targets import Misclassify
from clearsight.corruptions.common.clouds import plasma
from clearsight.corruptions.common.filters import bell, dragged, smoothed, surrounded, trail
from clearsight.corruptions.common.resampling import zoomed
from clearsight.corruptions.common.severity import constants
from clearsight.corruptions.defocus_blur import disk
from clearsight.corruptions.elastic_transform import inverse_affine
from clearsight.corruptions.frost import crystals, feather, frost
from clearsight.corruptions.glass_blur import shuffled
from clearsight.corruptions.shot_noise import poisson
from clearsight.errors import Refused
from clearsight.runner.corrupt import corrupt
from clearsight.runner.run import attack
from twohalves import Halves, found, model, rows, written


def grey(side: int, value: float = 0.5, channels: int = 1) -> Tensor:
    return torch.full((1, channels, side, side), value)


def photo(side: int) -> Tensor:
    """(1, 3, side, side), by taking every so many pixels."""
    x = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    step = 512 // side
    return x[None, :, : step * side : step, : step * side : step]


def by_severity(name: str, x: Tensor, **more: int) -> list[Tensor]:
    return [corrupt(x, f"{name}(severity={s})", **more) for s in range(1, 6)]


# What they share ------------------------------------------------------------------------------------------------------


def test_which_constants_and_how_lengths_of_corruptions_grow() -> None:
    sets = ([0] * 5, [1] * 5)
    sizes = {32: (0, 1), 28: (0, 1), 64: (0, 2), 84: (0, 84 / 32), 85: (1, 85 / 224), 224: (1, 1), 448: (1, 2)}
    for side, wanted in sizes.items():
        assert constants(torch.zeros(1, 1, side, 2 * side), 2, *sets) == wanted


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.7])
def test_corruptions_smooth_as_scipy_does(sigma: float) -> None:
    x = torch.rand(2, 3, 17, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="nearest")
    torch.testing.assert_close(smoothed(x, sigma), torch.from_numpy(wanted))
    around = surrounded(x, 40)
    assert np.array_equal(around, np.pad(x.numpy(), ((0, 0), (0, 0), (40, 40), (40, 40)), mode="reflect"))


def slow_plasma(chance: np.ndarray, decay: float) -> np.ndarray:
    """Diamond-square point by point on a torus; the published program's amplitude is the square of its wibble."""
    n = len(chance)
    high, step, wibble = np.zeros((n, n)), n, 1.0
    noise = 2 * chance - 1
    while step >= 2:
        half = step // 2
        for i in range(half, n, step):
            for j in range(half, n, step):
                ends = [high[(i + a) % n, (j + b) % n] for a in (-half, half) for b in (-half, half)]
                high[i, j] = np.mean(ends) + wibble * wibble * noise[i, j]
        for i in range(0, n, half):
            for j in range((i + half) % step, n, step):
                ends = [high[(i + a) % n, (j + b) % n] for a, b in ((-half, 0), (half, 0), (0, -half), (0, half))]
                high[i, j] = np.mean(ends) + wibble * wibble * noise[i, j]
        step, wibble = half, wibble / decay
    return (high - high.min()) / (high.max() - high.min())


@pytest.mark.parametrize("decay", [1.4, 3.0])
def test_fog_and_frost_rest_on_diamond_square(decay: float) -> None:
    chance = torch.rand(2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for clouds, c in zip(plasma(chance, decay), chance, strict=True):
        torch.testing.assert_close(clouds, torch.from_numpy(slow_plasma(c.numpy(), decay)))


# Noise ----------------------------------------------------------------------------------------------------------------


def test_gaussian_noise_has_its_deviations_and_no_mean() -> None:
    for side, sigmas in ((32, (0.04, 0.06, 0.08, 0.09, 0.10)), (224, (0.08, 0.12, 0.18, 0.26, 0.38))):
        x = grey(side).repeat(1, 3, 1, 1)
        noises = [z - x for z in by_severity("gaussian-noise", x)]
        for sigma, noise in zip(sigmas, noises, strict=True):
            wanted = scipy.stats.truncnorm.std(-0.5 / sigma, 0.5 / sigma) * sigma  # of what is not cut
            inside = noise[noise.abs() < 0.5]
            assert float(inside.std()) == pytest.approx(wanted, rel=0.04)
            assert abs(float(noise.mean())) < 4 * sigma / noise.numel() ** 0.5
        same = noises[1].abs() < 0.3
        torch.testing.assert_close(noises[1][same] / sigmas[1], noises[0][same] / sigmas[0], rtol=1e-3, atol=1e-4)


def test_shot_noise_counts_are_scipys_quantiles() -> None:
    mean = torch.linspace(0, 60, 400, dtype=torch.float64).repeat(5)
    chance = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = scipy.stats.poisson.ppf(chance.numpy(), mean.numpy()).clip(0)
    assert np.array_equal(poisson(mean, chance).numpy(), wanted)
    top = poisson(torch.tensor([500.0, 3.0]).double(), torch.tensor([1 - 2**-53, 1 - 2**-53]).double())
    assert 600 < float(top[0]) < 800
    assert 15 < float(top[1]) < 60


def test_shot_noise_has_the_variance_of_its_photons() -> None:
    for side, photons in ((32, (500, 250, 100, 75, 50)), (224, (60, 25, 12, 5, 3))):
        for n, z in zip(photons, by_severity("shot-noise", grey(side, 0.3, 3)), strict=True):
            counts = np.minimum(np.arange(900), n) / n  # what is brighter than white is white
            chance = scipy.stats.poisson.pmf(np.arange(900), 0.3 * n)
            mean = counts @ chance
            assert float(z.mean()) == pytest.approx(mean, abs=0.01)
            assert float(z.var()) == pytest.approx((counts - mean) ** 2 @ chance, rel=0.08)
            assert bool(((z * n - (z * n).round()).abs() < 1e-3).all())


def test_impulse_noise_hits_its_share_half_of_it_white() -> None:
    for side, shares in ((32, (0.01, 0.02, 0.03, 0.05, 0.07)), (224, (0.03, 0.06, 0.09, 0.17, 0.27))):
        x, before = grey(side, 0.5, 3), None
        for share, z in zip(shares, by_severity("impulse-noise", x), strict=True):
            n, hit = z.numel(), z != 0.5
            assert abs(float(hit.float().mean()) - share) < 4 * (share / n) ** 0.5
            assert abs(float((z == 1).float().mean()) - share / 2) < 4 * (share / n) ** 0.5
            assert set(z[hit].tolist()) == {0.0, 1.0}
            assert before is None or bool((hit | ~before).all())  # what is hit stays hit
            before = hit
    channels = hit.sum(1)
    assert bool((channels == 1).any())


# Blur -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius", "edge"), [(3.0, 0.1), (6.0, 0.5), (10.0, 0.5), (0.5, 0.6), (1.5, 0.1)])
def test_defocus_blur_is_a_disk(radius: float, edge: float) -> None:
    """It sums to 1, and its second moment is that of the disk's pixels and of the Gaussian on its edge."""
    kernel = disk(radius, edge)
    n = len(kernel) // 2
    at = torch.arange(-n, n + 1).double()
    inside = at.square()[:, None] + at.square() <= radius**2
    reach = 1 if radius <= 8 else 2
    line = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * edge**2))
    spread = float((line / line.sum()) @ np.arange(-reach, reach + 1) ** 2)
    moment = float((at.square()[:, None] * inside).sum() / inside.sum())
    assert float(kernel.sum()) == pytest.approx(1)
    assert float((kernel * at.square()[:, None]).sum()) == pytest.approx(moment + spread)
    assert float((kernel * at.square()).sum()) == pytest.approx(moment + spread)
    if radius > 2:
        assert moment == pytest.approx(radius**2 / 4, rel=0.1)  # that of a round disk


def test_defocus_blur_filters_with_it() -> None:
    for side, radii in ((32, (0.3, 1.5)), (224, (3.0, 10.0)), (112, (1.5, 5.0))):
        x = photo(side) if side < 224 else photo(256)[..., :224, :224]
        for severity, radius in zip((1, 5), radii, strict=True):
            edge = {1: 0.4 if side == 32 else 0.1, 5: 0.1 if side == 32 else 0.5}[severity]
            kernel = disk(radius, edge).numpy()
            wanted = np.stack([scipy.ndimage.correlate(c.double().numpy(), kernel, mode="mirror") for c in x[0]])
            found = corrupt(x, f"defocus-blur(severity={severity})")
            torch.testing.assert_close(found[0].double(), torch.from_numpy(wanted), rtol=0, atol=1e-5)


def test_glass_blur_moves_pixels_no_further_than_it_may() -> None:
    chance = torch.rand(1, 2, 30, 40, generator=torch.Generator().manual_seed(0))
    order = shuffled(chance, 2)
    assert sorted(order.tolist()) == list(range(1200))
    assert float((order != torch.arange(1200)).float().mean()) > 0.8
    first = shuffled(torch.tensor([[[[0.9] * 3] * 3, [[0.1] * 3] * 3]]), 1)  # down by 1 and left by 1: 4 and 6 swap
    assert first.tolist() == [0, 1, 2, 3, 6, 5, 4, 7, 8]
    right = shuffled(torch.tensor([[[[0.5] * 5] * 3, [[0.9] * 5] * 3]]), 1)  # the last pixel is the first to swap
    assert right.tolist()[5:10] == [5, 9, 6, 7, 8]
    two = shuffled(torch.stack([chance[0], chance[0]]), 2)
    assert sorted(two.tolist()) == list(range(1200))
    assert two.tolist() != order.tolist()


def test_glass_blur_keeps_the_sum_and_smooths_before_and_after() -> None:
    x = torch.zeros(1, 1, 224, 224)
    x[..., 112, 112] = 1
    with rng.seeded(0, x, what="glass-blur"):
        chance = rng.uniform(torch.empty(1, 3, 2, 224, 224, dtype=torch.float64))[0]
    for severity, (sigma, reach, rounds) in ((1, (0.7, 1, 2)), (3, (1.0, 2, 3)), (5, (1.5, 4, 2))):
        z = corrupt(x, f"glass-blur(severity={severity})")
        assert float(z.sum()) == pytest.approx(1, abs=1e-4)
        soft = scipy.ndimage.gaussian_filter(x[0, 0].double().numpy(), sigma, mode="nearest")
        mixed = soft.ravel()[shuffled(chance[:rounds], reach).numpy()].reshape(224, 224)
        wanted = scipy.ndimage.gaussian_filter(mixed, sigma, mode="nearest")
        torch.testing.assert_close(z[0, 0].double(), torch.from_numpy(wanted), rtol=0, atol=1e-6)


def test_motion_blur_is_a_trail_on_one_line() -> None:
    weight = trail(15, 8)
    assert len(weight) == 31
    assert float(weight.sum()) == pytest.approx(1)
    behind = np.arange(31)
    wanted = scipy.stats.norm.pdf(behind, scale=8)
    torch.testing.assert_close(weight, torch.from_numpy(wanted / wanted.sum()))
    x = torch.zeros(3, 1, 101, 101)
    x[..., 50, 50] = 1
    z = dragged(x, weight, torch.tensor([0.0, 90.0, 30.0]))
    torch.testing.assert_close(z[0, 0, 50, 50:81], weight.float())
    torch.testing.assert_close(z[1, 0, 50:81, 50], weight.float())
    torch.testing.assert_close(z.sum((1, 2, 3)), torch.ones(3))
    down, right = z[2, 0].nonzero().T - 50
    assert float((right * math.sin(math.pi / 6) - down * math.cos(math.pi / 6)).abs().max()) < 0.75
    assert int(right.max()) == 26  # 30 cos 30 degrees
    assert int(down.max()) == 15


def test_motion_blur_has_its_constants_and_one_angle() -> None:
    x = torch.zeros(16, 1, 225, 225)
    x[..., 112, 112] = 1
    x[:, 0, 0, :16] = torch.eye(16) * 1e-3  # other pictures, other angles
    seen = []
    for severity, (radius, sigma) in zip(range(1, 6), ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), strict=True):
        z = corrupt(x, f"motion-blur(severity={severity})")
        weight = trail(radius * 225 / 224, sigma * 225 / 224).float()
        middle = z[:, 0, 40:185, 40:185]
        torch.testing.assert_close(middle.sum((1, 2)), torch.ones(16), rtol=1e-3, atol=1e-3)
        rows, columns = torch.arange(40, 185.0) - 112, torch.arange(40, 185.0) - 112
        down, right = (middle.sum(2) @ rows), (middle.sum(1) @ columns)
        behind = float(weight @ torch.arange(len(weight)).float())
        torch.testing.assert_close(torch.hypot(down, right), torch.full((16,), behind), rtol=0, atol=0.4)
        seen.append(torch.rad2deg(torch.atan2(down, right)))
    assert bool((seen[-1].abs() < 46).all())
    assert float(seen[-1].max() - seen[-1].min()) > 45
    assert float((seen[-1] - seen[1]).abs().max()) < 4


def test_zoom_blur_is_the_mean_of_views() -> None:
    x = torch.linspace(-1, 1, 225).expand(1, 1, 225, 225) * 0.4 + 0.5  # a ramp: a view of it is a flatter ramp
    views = {1: np.arange(11) * 0.01, 3: np.arange(11) * 0.02, 5: np.arange(11) * 0.03}
    for severity, steps in views.items():
        z = corrupt(x, f"zoom-blur(severity={severity})")
        slope = (1 + (1 / (1 + steps)).sum()) / (len(steps) + 1)
        torch.testing.assert_close(z, (x - 0.5) * slope + 0.5, rtol=0, atol=1e-3)
    small = corrupt(x[..., 96:128, 96:128], "zoom-blur(severity=2)")
    slope = (1 + (1 / (1 + np.arange(11) * 0.01)).sum()) / 12
    ramp = x[..., 96:128, 96:128]
    torch.testing.assert_close(small, (ramp - ramp.mean()) * slope + ramp.mean(), rtol=0, atol=1e-3)
    down = x.mT.contiguous()
    torch.testing.assert_close(zoomed(down, 1.5)[0, 0, 75:150, 0], (down[0, 0, 75:150, 0] - 0.5) / 1.5 + 0.5)


# Weather --------------------------------------------------------------------------------------------------------------


def test_snow_bleaches_and_adds_flakes_twice() -> None:
    """What is added, before pixels are cut at 1, is the same when the picture is turned by 180 degrees."""
    x = grey(224, 0.0, 3)
    for severity, (mean, spread, size, least, radius, sigma, weight) in {
        1: (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        5: (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    }.items():
        z = corrupt(x, f"snow(severity={severity})")
        with rng.seeded(0, x, what="snow"):
            flakes = mean + spread * rng.normal(torch.empty(1, 1, 224, 224))
            angle = 45 + 90 * rng.uniform(torch.empty(1, 1, dtype=torch.float64))[:, 0]
        flakes = zoomed(flakes, size)
        flakes[flakes < least] = 0
        flakes = dragged(flakes.clamp(0, 1), trail(radius, sigma), angle)
        wanted = ((1 - weight) * 0.5 + flakes + flakes.flip(2, 3)).clamp(max=1).expand(1, 3, 224, 224)
        torch.testing.assert_close(z, wanted)
        torch.testing.assert_close(z, z.flip(2, 3))
        assert 45 <= float(angle) <= 135
    colour = torch.tensor([0.6, 0.1, 0.2]).view(1, 3, 1, 1).expand(1, 3, 224, 224)
    light = 1.5 * (0.299 * 0.6 + 0.587 * 0.1 + 0.114 * 0.2) + 0.5
    low = corrupt(colour.contiguous(), "snow(severity=2)").amin((2, 3))[0]
    wanted = torch.tensor([0.7 * c + 0.3 * max(c, light) for c in (0.6, 0.1, 0.2)])
    torch.testing.assert_close(low, wanted)


def test_frost_lies_on_the_picture_with_its_weights() -> None:
    for side, weights in ((32, ((1.0, 0.2), (0.9, 0.4), (0.75, 0.45))), (224, ((1.0, 0.4), (0.7, 0.7), (0.6, 0.75)))):
        for severity, (kept, much) in zip((1, 3, 5), weights, strict=True):
            call = f"frost(severity={severity})"
            black, dark = grey(side, 0.0, 3), grey(side, 0.0, 3)
            black[..., 0, 0] = dark[..., 0, 0] = 0.001  # one seed for both: the draws follow from the pixels
            ice = corrupt(black, call)
            assert float(ice[:, 2].max()) <= much + 1e-6
            assert float(ice[:, 2].max()) > much * (0.6 if side == 32 else 0.999)
            torch.testing.assert_close(ice[:, 0, 1:] / 0.86, ice[:, 2, 1:], rtol=1e-4, atol=1e-6)
            assert bool((ice[:, 2] >= ice[:, 1]).all())
            with rng.seeded(0, dark, what="frost"):
                half = frost.fn(dark + 0.25, severity=severity)
            torch.testing.assert_close(half, (ice + kept * 0.25).clamp(max=1), rtol=0, atol=2e-3)


def test_frost_grows_as_six_stems_with_branches() -> None:
    """Around one crystal the ice repeats itself every 60 degrees, and branches leave the stems at 60 degrees."""
    fine, radius = np.full(1, 5.0), 0.08
    for turned in (0.0, 0.3):
        for degrees in (0, 10, 25, 30, 47):
            values = []
            for k in range(6):
                at = math.radians(degrees + 60 * k)
                down, right = np.array([radius * math.sin(at)]), np.array([radius * math.cos(at)])
                values.append(float(feather(down, right, np.array([turned]), fine)[0]))
            assert max(values) - min(values) < 1e-9
    stem = math.radians(-0.3 * 60)
    down, right = np.array([radius * math.sin(stem)]), np.array([radius * math.cos(stem)])
    assert float(feather(down, right, np.array([0.3]), fine)[0]) == pytest.approx(1)
    start, step = 0.1, np.linspace(0.01, 0.03, 5)  # on a branch: so far from the stem, in its direction
    down, right = step * math.sin(math.pi / 3), start + step * math.cos(math.pi / 3)
    on = feather(down, right, np.zeros(5), np.full(5, 5.0))
    top = 0.8 * np.exp(-15 * down)
    phase = abs(math.cos(8 * math.pi * 5 * start)) ** 3
    np.testing.assert_allclose(on, np.maximum(top * phase, np.exp(-75 * down)))
    clouds = np.ones((96, 64)) * 0.5
    ice = crystals(np.random.default_rng(0).random((74, 4)), clouds)
    assert ice.shape == (96, 64)
    assert ice.max() == 1
    assert ice.min() >= 0
    drawn = np.mean([crystals(np.random.default_rng(k).random((74, 4)), clouds) for k in range(8)], 0)
    inner = np.zeros((96, 64), dtype=bool)
    inner[24:72, 16:48] = True
    assert drawn[~inner].mean() > 1.1 * drawn[inner].mean()  # thicker towards the border


def test_fog_is_added_and_white_stays() -> None:
    for side, n, sets in (
        (32, 32, {1: (0.2, 3.0), 5: (1.5, 1.75)}),
        (224, 256, {1: (1.5, 2.0), 3: (2.5, 1.7), 5: (3, 1.4)}),
    ):
        x = photo(32) if side == 32 else photo(256)[..., :224, :224]
        for severity, (much, decay) in sets.items():
            z = corrupt(x, f"fog(severity={severity})")
            with rng.seeded(0, x, what="fog"):
                chance = rng.uniform(torch.empty(1, n, n, dtype=torch.float64))
            clouds = plasma(chance, decay)[:, :side, :side].float()
            white = float(x.max())
            torch.testing.assert_close(z, (x + much * clouds) * white / (white + much))


def test_brightness_is_scikit_images() -> None:
    for side, steps in ((32, (0.05, 0.1, 0.15, 0.2, 0.3)), (128, (0.1, 0.2, 0.3, 0.4, 0.5))):
        x = photo(side)
        x[..., 0, 0] = 0
        for more, z in zip(steps, by_severity("brightness", x), strict=True):
            hsv = skimage.color.rgb2hsv(x[0].permute(1, 2, 0).double().numpy())
            hsv[..., 2] = (hsv[..., 2] + more).clip(0, 1)
            wanted = torch.from_numpy(skimage.color.hsv2rgb(hsv)).permute(2, 0, 1).float()
            torch.testing.assert_close(z[0], wanted, rtol=0, atol=1e-5)
            alone = corrupt(x[:, :1], f"brightness(severity={steps.index(more) + 1})")
            torch.testing.assert_close(alone, (x[:, :1] + more).clamp(max=1))


# Files ----------------------------------------------------------------------------------------------------------------


def test_contrast_shrinks_about_the_mean_of_each_channel() -> None:
    for side, shares in ((32, (0.75, 0.5, 0.4, 0.3, 0.15)), (128, (0.4, 0.3, 0.2, 0.1, 0.05))):
        x = photo(side)
        for share, z in zip(shares, by_severity("contrast", x), strict=True):
            torch.testing.assert_close(z.mean((2, 3)), x.mean((2, 3)), rtol=0, atol=1e-5)
            torch.testing.assert_close(z.std((2, 3)), share * x.std((2, 3)), rtol=1e-4, atol=1e-6)


def test_elastic_transform_moves_three_corners() -> None:
    moves = np.array([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.25]])
    back = inverse_affine(33, 33, moves)
    corners = np.array([[27, 27], [27, 5], [5, 5]])
    np.testing.assert_allclose(back @ np.concatenate([corners + moves, np.ones((3, 1))], 1).T, corners.T, atol=1e-9)
    np.testing.assert_allclose(inverse_affine(9, 9, np.zeros((3, 2))), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_elastic_transform_is_its_replica() -> None:
    small = {1: (0, 0, 0.08), 2: (0.05, 0.2, 0.07), 5: (0.1, 0.03, 0.03)}
    large = {1: (2, 0.7, 0.1), 2: (2, 0.08, 0.2), 3: (0.05, 0.01, 0.02), 5: (0.12, 0.01, 0.02)}
    for side, unit, sets in ((32, 32, small), (128, 244 * 128 / 224, large)):
        x = photo(side)
        for severity, shares in sets.items():
            far, smooth, corners = (unit * s for s in shares)
            with rng.seeded(0, x, what="elastic-transform"):
                three = 2 * rng.uniform(torch.empty(1, 3, 2, dtype=torch.float64))[0].numpy() - 1
                waves = 2 * rng.uniform(torch.empty(1, 2, side, side, dtype=torch.float64))[0].numpy() - 1
            down, right = (scipy.ndimage.gaussian_filter(w, smooth, truncate=3) * far for w in waves)
            back = inverse_affine(side, side, corners * three)
            rows_, columns = np.indices((side, side))
            at = (
                np.einsum("ij,jhw->ihw", back[:, :2], np.stack([rows_ + down, columns + right]))
                + back[:, 2, None, None]
            )
            wanted = [scipy.ndimage.map_coordinates(c, at, order=1, mode="mirror") for c in x[0].double().numpy()]
            z = corrupt(x, f"elastic-transform(severity={severity})")
            torch.testing.assert_close(z[0].double(), torch.from_numpy(np.stack(wanted)), rtol=0, atol=1e-5)


def test_pixelate_is_pillows_box() -> None:
    for side, shares in ((32, (0.95, 0.9, 0.85, 0.75, 0.65)), (128, (0.6, 0.5, 0.4, 0.3, 0.25))):
        x = photo(side)
        image = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
        for share, z in zip(shares, by_severity("pixelate", x), strict=True):
            few = (int(side * share), int(side * share))
            wanted = np.asarray(image.resize(few, Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX))
            found = (z[0] * 255).permute(1, 2, 0).numpy()
            assert np.abs(found - wanted).max() <= 1.01  # it rounds to 8 bits twice
    blocks = corrupt(photo(128), "pixelate(severity=5)").unfold(2, 4, 4).unfold(3, 4, 4)
    assert float((blocks - blocks[..., :1, :1]).abs().max()) < 1e-6


def test_jpeg_compression_is_pillows() -> None:
    for side, qualities in ((32, (80, 65, 58, 50, 40)), (128, (25, 18, 15, 10, 7))):
        x = photo(side)
        for channels in (3, 1):
            pixels = (x[0] * 255).round().byte().permute(1, 2, 0).numpy()
            image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
            for quality, z in zip(qualities, by_severity("jpeg-compression", x[:, :channels]), strict=True):
                file = io.BytesIO()
                image.save(file, "JPEG", quality=quality)
                wanted = np.asarray(Image.open(file)).reshape(side, side, channels)
                assert np.array_equal((z[0] * 255).round().byte().permute(1, 2, 0).numpy(), wanted)


def test_bit_depth_divides_by_what_is_not_there() -> None:
    x = torch.linspace(0, 1, 1024).view(1, 1, 32, 32)
    for bits, z in zip((15, 14, 13, 12, 10), by_severity("bit-depth", x), strict=True):
        stored = (x.numpy().astype(np.float64) * (2**bits - 1)).round()
        wanted = np.round(stored / 65535 * 255)
        assert np.array_equal((z * 255).round().numpy(), wanted)
        torch.testing.assert_close(z, torch.from_numpy(wanted / 255).float())
        assert len(set(wanted.ravel())) <= 2 ** (bits - 8) + 1


def test_colour_profile_of_known_colours() -> None:
    """sRGB's primaries in other spaces, as the published matrices (Bradford to D50) have them, in linear light."""
    p3 = [[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]]
    adobe = [[0.7152, 0.2848, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0412, 0.9588]]
    bt2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    romm = [[0.5293, 0.3300, 0.1407], [0.0983, 0.8735, 0.0283], [0.0169, 0.1177, 0.8655]]
    x = torch.cat([torch.eye(3), torch.ones(1, 3)])[:, :, None, None]
    for severity, matrix in ((1, p3), (2, adobe), (3, bt2020), (4, romm), (5, romm)):
        z = corrupt(x, f"colour-profile(severity={severity})")[:, :, 0, 0].double()
        light = {
            1: torch.where(z <= 0.04045, z / 12.92, ((z + 0.055) / 1.055) ** 2.4),
            2: z ** (563 / 256),
            3: torch.where(z < 0.0814, z / 4.5, ((z + 0.0993) / 1.0993) ** (1 / 0.45)),
            4: torch.where(z < 16 / 512, z / 16, z**1.8),
            5: z,
        }[severity]
        torch.testing.assert_close(light[:3].T, torch.tensor(matrix).double(), rtol=0, atol=2e-3)
        torch.testing.assert_close(light[3], torch.ones(3).double(), rtol=0, atol=1e-5)


def test_colour_profile_of_grey_stays_grey() -> None:
    ramp = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    for severity in range(1, 6):
        z = corrupt(ramp.expand(1, 3, 16, 16), f"colour-profile(severity={severity})")
        assert float((z - z[:, :1]).abs().max()) < 1e-4
        torch.testing.assert_close(corrupt(ramp, f"colour-profile(severity={severity})"), z[:, :1], rtol=0, atol=1e-4)
    torch.testing.assert_close(corrupt(ramp, "colour-profile(severity=1)"), ramp, rtol=0, atol=1e-5)
    for severity, slope in ((3, 4.5), (4, 16)):  # near black the curves are straight, as sRGB's is
        dark = corrupt(ramp, f"colour-profile(severity={severity})").flatten()
        assert float(dark[3]) == pytest.approx(slope * 3 / 255 / 12.92, abs=1e-6)
    linear_light = corrupt(ramp, "colour-profile(severity=5)").flatten()
    assert float(linear_light[128]) == pytest.approx(((128 / 255 + 0.055) / 1.055) ** 2.4, abs=1e-5)


def test_thumbnail_is_pillows_small_jpeg_enlarged() -> None:
    """Roundings to 8 bits before the JPEG show behind it, but no other share, quality or filter comes as near."""
    x, kind = photo(128), Image.Resampling
    image = Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy())
    others = ((1.1, 75, kind.LANCZOS, kind.BICUBIC), (1, 60, kind.LANCZOS, kind.BICUBIC))
    others += ((1, 75, kind.BOX, kind.BICUBIC), (1, 75, kind.LANCZOS, kind.BOX), (1, 90, kind.LANCZOS, kind.BICUBIC))
    for share, z in zip((0.7, 0.5, 0.35, 0.25, 0.18), by_severity("thumbnail", x), strict=True):
        gaps = []
        for more, quality, down, up in ((1, 75, kind.LANCZOS, kind.BICUBIC), *others):
            few = round(128 * share * more)
            file = io.BytesIO()
            image.resize((few, few), down).save(file, "JPEG", quality=quality)
            wanted = np.asarray(Image.open(file).resize((128, 128), up)).astype(np.float64)
            gaps.append(np.abs((z[0] * 255).permute(1, 2, 0).numpy() - wanted).mean())
        assert gaps[0] < 2.5
        assert gaps[0] == min(gaps)


# Where the camera stood -----------------------------------------------------------------------------------------------


def test_orientation_turns_to_both_sides() -> None:
    x = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    for severity in (1, 5):
        z = corrupt(x, f"orientation(severity={severity})")
        sides = [
            (torch.equal(b, a.rot90(1, (1, 2))), torch.equal(b, a.rot90(-1, (1, 2)))) for a, b in zip(x, z, strict=True)
        ]
        assert all(left != right for left, right in sides)
        assert 3 < sum(left for left, _ in sides) < 13
    long = torch.zeros(8, 1, 20, 40)
    long[..., :20] = 1  # white on the left: turned, it is above or below
    for z in corrupt(long, "orientation"):
        halves = float(z[0, :8].mean()), float(z[0, 12:].mean())
        assert sorted(halves) == pytest.approx([0, 1], abs=0.01)


def test_rotation_is_scipys() -> None:
    x = photo(64)[..., :50, :].expand(8, 3, 50, 64) * torch.linspace(0.5, 1, 8)[:, None, None, None]
    for degrees, z in zip((4, 8, 15, 22, 30), by_severity("rotation", x.contiguous()), strict=True):
        sides = []
        for a, b in zip(x.double().numpy(), z.double().numpy(), strict=True):
            gaps = [
                np.abs(scipy.ndimage.rotate(a, sign * degrees, (1, 2), reshape=False, order=1, mode="mirror") - b).max()
                for sign in (1, -1)
            ]
            assert min(gaps) < 1e-5
            assert max(gaps) > 0.1
            sides.append(gaps.index(min(gaps)))
        assert len(set(sides)) == 2


def test_translation_moves_by_its_share_in_every_direction() -> None:
    x = torch.rand(32, 1, 60, 40, generator=torch.Generator().manual_seed(0))
    for share, z in zip((0.05, 0.1, 0.15, 0.2, 0.25), by_severity("translation", x), strict=True):
        moves = []
        for a, b in zip(x[:, 0], z[:, 0], strict=True):
            found = [
                (down, right)
                for down in range(-11, 12)
                for right in range(-11, 12)
                if torch.equal(a.roll((down, right), (0, 1))[12:-12, 12:-12], b[12:-12, 12:-12])
            ]
            assert len(found) == 1
            moves += found
        length = np.hypot(*np.array(moves).T)
        assert np.abs(length - share * 40).max() <= 0.75
        assert {(math.copysign(1, a), math.copysign(1, b)) for a, b in moves} == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    edge = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 5, 5) / 4
    assert set(corrupt(edge, "translation(severity=1)").flatten().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert not torch.equal(corrupt(x[..., :3, :3], "translation(severity=1)"), x[..., :3, :3])


# The attack -----------------------------------------------------------------------------------------------------------


def test_spatial_turns_as_scipy_does() -> None:
    x = photo(64)[..., :48, :]
    for degrees in (-30.0, 17.0, 90.0):
        turned = moved(x, torch.tensor([degrees]), torch.zeros(1, 2))[0].double().numpy()
        wanted = scipy.ndimage.rotate(x[0].double().numpy(), -degrees, (1, 2), reshape=False, order=1, mode="constant")
        assert np.abs(turned - wanted)[:, 8:-8, 12:-12].max() < 2e-4
    shifted = moved(x, torch.zeros(1), torch.tensor([[0.25, -0.125]]))
    torch.testing.assert_close(shifted[..., :42, 16:], x[..., 6:, :48], rtol=0, atol=1e-4)
    assert float(shifted[..., :16].abs().max()) < 1e-6
    assert float(shifted[..., 42:, :].abs().max()) < 1e-6


def test_spatial_turns_first_and_moves_then() -> None:
    x = torch.zeros(1, 1, 21, 21)
    x[..., 10, 18] = 1
    z = moved(x, torch.tensor([90.0]), torch.tensor([[4 / 21, 0.0]]))  # clockwise: from the right to below
    assert z[0, 0].argmax().item() == 18 * 21 + 14


def test_spatial_grid_begins_with_the_picture_and_has_all_combinations() -> None:
    points = even(31, 5)
    assert len(set(points)) == 775
    assert points[0] == (0.0, 0.0, 0.0)
    assert {p[0] for p in points} == {2 * k / 30 - 1 for k in range(31)}
    assert {p[1] for p in points} == {-1.0, -0.5, 0.0, 0.5, 1.0}
    size = [sum(map(abs, p)) for p in points]
    assert all(a <= b + 1e-6 for a, b in pairwise(size))


def test_spatial_finds_the_one_place_that_fools() -> None:
    """A linear model that is fooled only where the light stands 2 to the right and 1 below, and nowhere else."""
    weight = torch.full((11, 11), 1.0)
    weight[6, 7] = -5.0
    x = torch.zeros(1, 1, 11, 11)
    x[..., 5, 5] = 1

    class Spot(torch.nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            score = (z[:, 0] * weight).flatten(1).sum(1)
            return torch.stack([score, torch.zeros_like(score)], 1)

    model = Classifier(Spot(), Preprocess((11, 11), (0.0,), (1.0,)), ("a", "b"), "spot")
    grid = "spatial(search=grid, rotation=0, angles=1, translation=0.36363636, shifts=9)"
    a = attack(model, x, torch.tensor([0]), grid)
    assert a.fooled.tolist() == [True]
    assert int(a.x.argmax()) == 6 * 11 + 7
    assert a.eps == 1.0
    near = attack(model, x, torch.tensor([0]), "spatial(search=grid, rotation=0, angles=1, translation=0.09, shifts=3)")
    assert near.fooled.tolist() == [False]
    few, many = (attack(model, x, torch.tensor([0]), f"spatial(tries={n}, translation=0.4)") for n in (1, 200))
    assert (few.fooled.item(), many.fooled.item()) == (False, True)
    assert few.queries < 5
    assert many.queries < 203
    assert a.queries < 60  # of 81, for who meets the goal is left alone
    several = x * torch.tensor([1.0, 0.9, 0.8])[:, None, None, None]
    whole = attack(model, several, torch.tensor([0] * 3), "spatial(tries=3)").x
    alone = [attack(model, z[None], torch.tensor([0]), "spatial(tries=3)").x for z in several]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-5)
    held = attack(model, x, torch.tensor([0]), grid, eps=0.1)
    assert not held.fooled.item()
    assert held.overstep == 0
    with torch.no_grad():
        assert not Misclassify(torch.tensor([0])).met(model(held.x)).item()


# The check ------------------------------------------------------------------------------------------------------------


def flat_case(folder: Path, values: Sequence[float], labels: Sequence[str], **more: int) -> Case:
    """Pictures of one grey each, and a network that says dark below one half."""
    pictures = [np.full((16, 32), round(255 * v)) for v in values]
    return Case(model(Halves()), written(folder, pictures, [(w,) for w in labels]), **more)


BOTH = 'corruptions(which="contrast, brightness", floor={})'


def test_check_of_corruptions_by_hand(tmp_path: Path) -> None:
    """Small pictures become brighter by 0.05, 0.15 and 0.3; less contrast changes nothing that is flat."""
    values = [0.1, 0.1, 0.3, 0.3, 0.4, 0.4, 0.47, 0.47, 0.3]
    case = flat_case(tmp_path, values, ["dark"] * 8 + ["bright"])
    f = found(case, BOTH.format(0.3))
    each = [
        1,
        1,
        5 / 6,
        5 / 6,
        4 / 6,
        4 / 6,
        0.5,
        0.5,
        1 / 6,
    ]  # the last is right only where it is as bright as its label
    order = case.sample(range(9), 9)
    assert f.value == pytest.approx(37 / 54)
    assert f.interval == pytest.approx(bootstrap([each[i] for i in order], 0))
    assert (f.n, f.verdict) == (9, "pass")
    assert "68.5 % of the answers are right" in f.headline
    assert "of the untouched pictures 88.9 %; the worst is brightness with 48.1 %" in f.headline
    table = rows(f, "Right answers by damage")
    assert [r["damage"] for r in table] == ["brightness", "contrast"]
    assert [table[0][f"severity {s}"] for s in (1, 3, 5)] == pytest.approx([6 / 9, 4 / 9, 3 / 9])
    assert [table[1][f"severity {s}"] for s in (1, 3, 5)] == pytest.approx([8 / 9] * 3)
    assert [r["lost"] for r in rows(f, "By picture")] == [3, 3, 2, 2, 1, 1, 0, 0]
    notes = " ".join(f.notes)
    assert "The mean corruption error is 31.5 %, on the untouched pictures 11.1 %." in notes
    assert "Relative to the untouched pictures there are 22.9 % fewer right answers (95 % " in notes
    assert "AlexNet" in notes
    assert [e.facts["damage"] for e in f.evidence] == [f"brightness(severity={s})" for s in (1, 1, 3, 3, 5, 5)]
    assert {e.picture for e in f.evidence[:2]} == {"06.png", "07.png"}
    again = re.search(r"--only '(.*?)'", f.evidence[2].command)
    assert again is not None
    assert found(case, again[1]).evidence[0].facts["damage"] == "brightness(severity=3)"
    assert [found(case, BOTH.format(floor)).verdict for floor in (0.0, 0.69, 1.0)] == ["pass", "warn", "fail"]


def test_check_of_corruptions_shows_the_surest_of_the_wrong_answers_first(tmp_path: Path) -> None:
    case = flat_case(tmp_path, [0.46, 0.49, 0.47, 0.48] + [0.1] * 4, ["dark"] * 8)
    f = found(case, "corruptions(which=brightness, severities=1)")
    assert [e.picture for e in f.evidence] == ["01.png", "03.png", "02.png", "00.png"]
    sure = [e.facts["its probability"] for e in f.evidence]
    assert sure == sorted(sure, reverse=True)
    assert [r["damage"] for r in rows(f, "Right answers")] == ["brightness"]


def test_check_of_corruptions_right_everywhere_is_not_certain(tmp_path: Path) -> None:
    f = found(flat_case(tmp_path, [0.1] * 8, ["dark"] * 8), "corruptions(which=contrast, floor=0.6)")
    assert (f.value, f.interval, f.verdict) == (1.0, wilson(8, 8), "pass")
    assert not f.evidence
    none = found(flat_case(tmp_path, [0.1] * 8, ["bright"] * 8), "corruptions(which=contrast)")
    assert (none.value, none.interval, none.verdict) == (0.0, wilson(0, 8), "fail")
    assert "No untouched picture is answered right" in " ".join(none.notes)


def test_check_of_corruptions_draws_with_the_seed_of_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def noted(x: Tensor, call: Call, *, seed: int) -> Tensor:
        seeds.append(seed)
        return corrupt(x, call, seed=seed)

    monkeypatch.setattr(sys.modules["clearsight.checks.corruptions"], "corrupt", noted)
    found(flat_case(tmp_path, [0.1] * 8, ["dark"] * 8, seed=7), "corruptions(severities=2)")
    assert seeds == [7] * 10


def test_the_worst_of_the_corruptions_comes_first() -> None:
    """By the mean over the severities, and by name where two are alike."""
    calls = corruption_calls("brightness, contrast, fog", [1, 5])
    right = [[True, True], [True, True], [True, True], [False, False], [True, False], [False, True]]
    found = CorruptedAnswers(right={str(c): r for c, r in zip(calls, right, strict=True)})
    assert worst_first(found, calls) == ["contrast", "fog", "brightness"]


def test_relative_drop_under_corruptions() -> None:
    """Where every right picture is kept half of the time, any draw of pictures has lost half."""
    drop, interval = accuracy_drop([True] * 5 + [False] * 5, [0.5] * 5 + [0.0] * 5, 0)
    assert drop == 0.5
    assert interval == pytest.approx((0.5, 0.5))


def test_which_corruptions_the_check_asks_for() -> None:
    assert [len(corruption_calls(which, [1, 3, 5])) for which in ("quick", "common")] == [30, 45]
    assert len(corruption_calls("all", [2])) == len(catalogue("corruptions")) >= 21
    assert [str(c) for c in corruption_calls("fog, snow", [1, 5])] == [
        f"{n}(severity={s})" for n in ("fog", "snow") for s in (1, 5)
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ('severities="0, 6"', "whole numbers from 1 to 5"),
        ("severities=mild", "whole numbers from 1 to 5"),
        ('severities=""', "whole numbers from 1 to 5"),
        ("which=fogg", "did you mean.*fog"),
        ('which=""', "quick, common, all, or names"),
        ('which="fog, fog"', "each once"),
        ("which=fog(severity=2)", "give severities by themselves"),
        ("floor=2", "a share from 0 to 1"),
        ("pictures=0", "at least 1"),
    ],
)
def test_check_of_corruptions_refuses_before_it_reads(options: str, told: str, tmp_path: Path) -> None:
    case = flat_case(tmp_path, [0.1], ["dark"])
    case.data.pictures[0].path.unlink()
    with pytest.raises(Refused, match=told):
        found(case, f"corruptions({options})")


def test_bell_of_no_width_is_one_point() -> None:
    assert bell(2, 0.0).tolist() == [0, 0, 1, 0, 0]
    assert float(bell(4, 1.3).sum()) == pytest.approx(1)
