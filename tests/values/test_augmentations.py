"""Augmentations: the manners of all of them, each one's closed forms and distribution, and the runner over them."""

from __future__ import annotations

import doctest
import importlib
import inspect
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from argsblock import check_args_block
from clearsight.augmentations.common import draws
from clearsight.augmentations.common.draws import box, partners
from clearsight.augmentations.common.geometry import moved
from clearsight.augmentations.lighting import VALUES, VECTORS
from clearsight.augmentations.mosaic import covering
from clearsight.augmentations.rand_augment import GREATEST, OPERATIONS
from clearsight.core import rng
from clearsight.core.catalogue import Call, catalogue, parse
from clearsight.core.preprocess import Preprocess
from clearsight.curation import augment_preview
from clearsight.curation.augment_preview import augment_pictures, augmented_versions
from clearsight.data.datasets import Picture, Pictures, demo_pictures, folder
from clearsight.data.images import open_picture, to_pixels
from clearsight.errors import Refused
from clearsight.runner.augment import augment, read

EVERY = catalogue("augmentations")
SIZE = (33, 47)
LOUD = {  # so that each is sure to change every picture
    "blur": "blur(chance=1, sigma=3)",
    "erasing": "erasing(chance=1, least=0.2)",
    "flip": "flip(chance=1)",
    "grid-mask": "grid-mask(chance=1)",
    "mixup": "mixup(alpha=1)",
    "mosaic": "mosaic(chance=1)",
    "rand-augment": "rand-augment(operations=4, magnitude=20)",
}
WRONG = {  # options outside of their range
    "affine": ["rotation=-1", "rotation=181", "translation=1.1", "scale=-0.1", "shear=61"],
    "blur": ["sigma=0", "sigma=101", "chance=1.5"],
    "colour-jitter": ["brightness=1.1", "contrast=-0.1", "saturation=2", "hue=0.6"],
    "crop": ["scale=0", "scale=1.5", "ratio=0", "ratio=1.3"],
    "cutmix": ["alpha=0", "alpha=-1"],
    "erasing": ["chance=-0.1", "least=-1", "most=1.1", "ratio=0", "least=0.5"],
    "flip": ["chance=1.1"],
    "grid-mask": ["chance=2", "ratio=1.1", "least=0", "most=1.5", "most=0.3"],
    "lighting": ["std=-1"],
    "mixup": ["alpha=0", "alpha=1e9"],
    "mosaic": ["margin=0.6", "chance=-1"],
    "rand-augment": ["operations=-1", "magnitude=31"],
}
every = pytest.mark.parametrize("name", EVERY)
alone = pytest.mark.parametrize("name", [n for n, m in EVERY.items() if "mixes" not in m.claims])
mixing = pytest.mark.parametrize("name", [n for n, m in EVERY.items() if "mixes" in m.claims])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 5, channels: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth pictures with some noise, of another brightness each."""
    low = torch.rand(n, channels, 5, 5, generator=seeded(1))
    smooth = torch.nn.functional.interpolate(low, size, mode="bicubic").clamp(0, 1)
    return (0.8 * smooth + 0.2 * torch.rand(n, channels, *size, generator=seeded(2))).clamp(0, 1)


def run(spelling: str, x: Tensor, y: Tensor | None = None, seed: int = 0, size: tuple[int, int] = SIZE):
    """The method itself with its random numbers seeded, without the runner's checks."""
    call = parse(spelling, "augmentations")
    y = torch.eye(len(x)) if y is None else y
    given = {"size": size} if "size" in call.method.injected else {}
    with rng.seeded(seed, x, str(call)):
        return call.method(x, y, **call.options, **given)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch):
    """chosen(0.5, ...): every draw of so many numbers for each picture gives these."""

    def use(*numbers: float) -> None:
        row = torch.tensor(numbers, dtype=torch.float64)

        def uniform(like: Tensor, rows: Tensor | None = None) -> Tensor:
            return row.to(like.dtype).expand_as(like).clone()

        monkeypatch.setattr(rng, "uniform", uniform)

    return use


def straight(spelling: str, x: Tensor, y: Tensor | None = None, **given: tuple[int, int]):
    """The method outside of any runner."""
    call = parse(spelling, "augmentations")
    return call.method(x, torch.eye(len(x)) if y is None else y, **call.options, **given)


# --- manners ----------------------------------------------------------------------------------------------------------


def test_there_are_twelve():
    assert len(EVERY) >= 12
    assert set(WRONG) >= set(EVERY)


@every
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [SIZE, (1, 2), (64, 8)])
def test_what_comes_out(name, channels, size):
    x, y = pictures(4, channels, size), torch.rand(4, 3, generator=seeded(0))
    y /= y.sum(1, keepdim=True)
    was, labels = x.clone(), y.clone()
    target = (17, 29) if "resizes" in EVERY[name].claims else size
    for seed in range(3):
        new, shares = run(LOUD.get(name, name), x, y, seed, size=target)
        assert new.shape == (4, channels, *target)
        assert new.dtype == shares.dtype == torch.float32
        assert new.isfinite().all()
        assert -1e-5 <= new.min() <= new.max() <= 1 + 1e-5
        assert (shares >= 0).all()
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
        if "mixes" not in EVERY[name].claims:
            assert torch.equal(shares, labels)
        assert torch.equal(x, was)
        assert torch.equal(y, labels)


@every
def test_same_seed_same_result_another_seed_another_one(name):
    x = pictures()
    first, again, other = (run(LOUD.get(name, name), x, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    changed = (first != other).flatten(1).any(1)
    assert not changed.any() if name == "flip" else changed.float().mean() >= 0.8
    differs = (first != x).flatten(1).any(1)
    assert differs.float().mean() >= (0.6 if name in ("cutmix", "rand-augment") else 1)


@alone
def test_a_picture_alone_and_in_any_company(name):
    x, order = pictures(), torch.tensor([3, 0, 4])
    for spelling in {name, LOUD.get(name, name)}:
        whole = run(spelling, x)[0]
        assert torch.equal(run(spelling, x[order])[0], whole[order])
        assert torch.equal(run(spelling, x[2:3])[0], whole[2:3])


@mixing
def test_order_does_not_matter_to_what_mixes(name):
    x, y, order = pictures(), torch.eye(5), torch.tensor([3, 0, 4, 1, 2])
    new, shares = run(LOUD.get(name, name), x, y)
    again, mixed = run(LOUD.get(name, name), x[order], y[order])
    assert torch.equal(again, new[order])
    torch.testing.assert_close(mixed, shares[order])
    assert (shares.max(1).values < 1).any()
    single, own = run(name, x[:1], y[:1])
    assert single.shape == x[:1].shape
    torch.testing.assert_close(own, y[:1])


@every
def test_options_are_typed_documented_and_refused(name):
    m = EVERY[name]
    doc = inspect.getdoc(m.fn)
    assert re.fullmatch(r"[A-Z].*\.", m.summary)
    assert len(m.summary) <= 80
    assert "x (B, C, H, W) in [0, 1], y (B, K)" in doc
    assert m.paper in importlib.import_module(m.fn.__module__).__doc__
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+", m.paper)
    assert m.claims <= {"mixes", "resizes", "moves", "recolours"}
    assert ("resizes" in m.claims) == ("size" in m.injected)
    assert m.injected <= {"size"}
    check_args_block(m)
    for about in m.options.values():
        assert about.annotation in (int, float) or get_origin(about.annotation) is Literal
        if get_origin(about.annotation) is Literal:
            assert about.default in get_args(about.annotation)
    for wrong in WRONG[name]:
        option = wrong.partition("=")[0]
        with pytest.raises(Refused, match=rf"\b{option}\b.* must "):
            run(f"{name}({wrong})", pictures())
    for option, about in m.options.items():
        if about.annotation is float:
            call = parse(name, "augmentations").with_options(**{option: math.nan})
            with pytest.raises(Refused, match=option):
                call.method(pictures(), torch.eye(5), **call.options, **({"size": SIZE} if m.injected else {}))


@every
def test_examples_are_true(name):
    m = EVERY[name]
    space = vars(importlib.import_module(m.fn.__module__)).copy()
    runner = doctest.DocTestRunner()
    with torch.random.fork_rng():
        for test in doctest.DocTestFinder(recurse=False).find(m.fn, name, globs=space):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries


def test_examples_beside_the_augmentations_are_true():
    assert doctest.testmod(draws) == (0, 3)


# --- what they share --------------------------------------------------------------------------------------------------


def test_boxes_fit_and_their_area_is_uniform():
    chance = torch.rand(4000, 4, generator=seeded(0), dtype=torch.float64)
    for size in ((300, 300), (300, 220), (220, 300)):
        found = np.array([box(row, size, 0.2, 1.0, 0.7) for row in chance])
        assert (found[:, :2] >= 0).all()
        assert (found[:, 0] + found[:, 2] <= size[0]).all()
        assert (found[:, 1] + found[:, 3] <= size[1]).all()
        area = found[:, 2] * found[:, 3] / (size[0] * size[1])
        assert stats.kstest(area, stats.uniform(0.2, 0.8).cdf).pvalue > 0.001
        shape = found[:, 3] / found[:, 2]
        assert 0.7 * 0.99 <= shape.min() <= shape.max() <= 1 / 0.7 * 1.01
        low = area < 0.6  # where every ratio fits, it is log-uniform
        if size == (300, 300):
            assert stats.kstest(np.log(shape[low]), stats.uniform(np.log(0.7), -2 * np.log(0.7)).cdf).pvalue > 0.001
        assert ((found[:, 0] == 0) & (found[:, 2] < size[0])).any()
        assert ((found[:, 0] + found[:, 2] == size[0]) & (found[:, 2] < size[0])).any()
        assert ((found[:, 1] + found[:, 3] == size[1]) & (found[:, 3] < size[1])).any()


def test_boxes_in_long_pictures_keep_their_proportions():
    for size in ((100, 600), (600, 100)):
        for row in torch.rand(50, 4, generator=seeded(0)):
            _, _, h, w = box(row, size, 0.9, 1.0, 0.5)
            assert (h, w) == ((100, 200) if size[0] == 100 else (200, 100))


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_partners_are_a_ring(n):
    key = torch.rand(n, generator=seeded(n))
    found = partners(key)
    assert sorted(found.tolist()) == list(range(n))
    assert (found != torch.arange(n)).all() or n == 1
    went, at = [], 0
    for _ in range(n):
        went.append(at)
        at = int(found[at])
    assert at == 0
    assert sorted(went) == list(range(n))


def test_what_moves_in_is_the_mean_colour_and_the_seam_is_not_dark():
    x = pictures(1)[0]
    out = moved(x, right=10.0)
    torch.testing.assert_close(out[:, :, 10:], x[:, :, :-10], atol=1e-5, rtol=0)
    mean = x.mean((1, 2))
    torch.testing.assert_close(out[:, :, :10], mean[:, None, None].expand(3, 33, 10), atol=1e-5, rtol=0)
    half = moved(x, right=10.5)
    torch.testing.assert_close(half[:, :, 10], (mean[:, None] + x[:, :, 0]) / 2, atol=1e-5, rtol=0)
    assert (moved(torch.full((3, 9, 9), 0.7), angle=30.0, shear=(5.0, 0.0)) - 0.7).abs().max() < 1e-6


# --- each one's values ------------------------------------------------------------------------------------------------


def test_flip():
    x = pictures(2000, 1, (2, 3))
    mirrored = {"horizontal": x.flip(-1), "vertical": x.flip(-2)}
    for direction, other in mirrored.items():
        assert torch.equal(run(f"flip(chance=1, direction={direction})", x)[0], other)
        assert torch.equal(run(f"flip(chance=0, direction={direction})", x)[0], x)
        new = run(f"flip(direction={direction})", x)[0]
        turned = (new == other).flatten(1).all(1)
        assert (turned | (new == x).flatten(1).all(1)).all()
        assert stats.binomtest(int(turned.sum()), len(x), 0.5).pvalue > 0.001


def test_crop_of_all_of_a_square_is_a_plain_resize():
    x = pictures(3, 3, (50, 50))
    new = run("crop(scale=1, ratio=1)", x, size=(20, 31))[0]
    torch.testing.assert_close(new, F.resize(x, [20, 31], antialias=True))
    assert (new - F.resize(x, [20, 31], antialias=False)).abs().max() > 0.05
    assert torch.equal(run("crop(scale=1, ratio=1)", x, size=(50, 50))[0], x)


def test_crop_shows_the_box_it_drew():
    """Of a picture whose pixels are their coordinates, the ends of what is shown say where it was cut."""
    side = 120
    ramp = (torch.arange(side) + 0.5) / side
    n = 600
    x = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)])
    x = x.expand(n, 3, side, side).clone()
    x[:, 2] = torch.rand(n, 1, 1, generator=seeded(0))  # so that each draws for itself
    new = run("crop(scale=0.3, ratio=1)", x, size=(6, 6))[0]
    step = new[:, 0, 0, 3] - new[:, 0, 0, 2]
    down = new[:, 1, 3, 0] - new[:, 1, 2, 0]
    torch.testing.assert_close(step, down, atol=2e-4, rtol=0)
    area = (6 * step).square()
    assert stats.kstest(area.numpy(), stats.uniform(0.3, 0.7).cdf).pvalue > 0.001
    middle = new[:, 0].mean((1, 2))
    room = 1 - 6 * step
    place = ((middle - 3 * step) / room)[room > 0.2]
    assert stats.kstest(place.numpy(), stats.uniform.cdf).pvalue > 0.001
    down_place = ((new[:, 1].mean((1, 2)) - 3 * step) / room)[room > 0.2]
    assert abs(np.corrcoef(place, down_place)[0, 1]) < 0.15


def test_affine_by_ninety_degrees_is_rot90(chosen):
    x = pictures(2, 3, (31, 31))
    rest = "translation=0, scale=0, shear=0"
    chosen(1, 0.5, 0.5, 0.5, 0.5, 0.5)
    torch.testing.assert_close(straight(f"affine(rotation=90, {rest})", x)[0], x.rot90(-1, (2, 3)), atol=1e-4, rtol=0)
    chosen(0, 0.5, 0.5, 0.5, 0.5, 0.5)
    torch.testing.assert_close(straight(f"affine(rotation=90, {rest})", x)[0], x.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_affine_of_nothing_is_the_picture():
    x = pictures(3)
    new = run("affine(rotation=0, translation=0, scale=0, shear=0)", x)[0]
    torch.testing.assert_close(new, x, atol=1e-5, rtol=0)


def test_affine_moves_scales_and_shears_by_what_it_says(chosen):
    x = pictures(1, 1, (40, 60))
    chosen(0.5, 1, 0, 0.5, 0.5, 0.5)  # to the right and up
    new = straight("affine(rotation=0, translation=0.25, scale=0, shear=0)", x)[0]
    torch.testing.assert_close(new[..., :30, 15:], x[..., 10:, :45], atol=1e-5, rtol=0)
    chosen(0.5, 0.5, 0.5, 1, 0.5, 0.5)
    smooth = ((torch.arange(40) + 0.5) / 40).expand(1, 1, 40, 40)
    new = straight("affine(rotation=0, translation=0, scale=1, shear=0)", smooth)[0]
    torch.testing.assert_close(new, 0.5 + (smooth - 0.5) / 2, atol=1e-5, rtol=0)
    chosen(0.5, 0.5, 0.5, 0, 0.5, 0.5)
    new = straight("affine(rotation=0, translation=0, scale=1, shear=0)", smooth)[0]
    torch.testing.assert_close(new[..., 10:30, 10:30], (0.5 + (smooth - 0.5) * 2)[..., 10:30, 10:30], atol=1e-5, rtol=0)
    lean = ((torch.arange(40.0) - 19.5) / 40)[:, None]
    for along, across, axis in ((1, 0.5, lean), (0.5, 1, lean.T)):
        chosen(0.5, 0.5, 0.5, 0.5, along, across)
        ramp = smooth if across == 0.5 else smooth.mT
        new = straight("affine(rotation=0, translation=0, scale=0, shear=45)", ramp)[0]
        inside = (slice(None), slice(None), slice(15, 25), slice(15, 25))
        apart = (new - ramp)[inside].abs()
        torch.testing.assert_close(apart, axis.abs().expand(1, 1, 40, 40)[inside], atol=1e-5, rtol=0)


def test_affine_draws_evenly_both_ways():
    """A point of light in the middle goes as far one way as the other."""
    n, side = 300, 41
    x = torch.zeros(n, 1, side, side)
    x[:, 0, 20, 20] = 1 - torch.arange(n) / (2 * n)
    new = run("affine(rotation=0, translation=0.3, scale=0, shear=0)", x)[0]
    light = torch.where(new > 1.01 * x.mean((2, 3), keepdim=True), new, 0)[:, 0]  # without the ground that moves in
    at = torch.arange(side, dtype=torch.float32)
    for marginal in (light.sum(1), light.sum(2)):
        moves = ((marginal * at).sum(1) / marginal.sum(1) - 20) / side
        assert stats.kstest(moves.numpy(), stats.uniform(-0.3, 0.6).cdf).pvalue > 0.001


NEUTRAL = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


def jitter(**options: float) -> str:
    return f"colour-jitter({', '.join(f'{k}={v}' for k, v in (NEUTRAL | options).items())})"


def test_colour_jitter_of_known_factors(chosen):
    x = pictures(2, 3, (9, 8)) * 0.6
    grey = (x * x.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    chosen(*[0.75] * 8)  # half of the way up
    for options, expected in {
        "brightness": 1.25 * x,
        "contrast": 1.25 * x - 0.25 * grey.mean((2, 3), keepdim=True),
        "saturation": 1.25 * x - 0.25 * grey,
    }.items():
        found = straight(jitter(**{options: 0.5}), x)[0]
        torch.testing.assert_close(found, expected.clamp(0, 1), atol=2e-4, rtol=0)
    chosen(*[1.0] * 8)  # a third of the circle: red turns green
    red = torch.tensor([0.8, 0.1, 0.1]).view(1, 3, 1, 1)
    turned = straight(jitter(hue=1 / 3), red)[0].flatten()
    torch.testing.assert_close(turned, torch.tensor([0.1, 0.8, 0.1]), atol=1e-4, rtol=0)
    assert torch.equal(straight(jitter(), x)[0], x)


def test_colour_jitter_of_grey_pictures(chosen):
    x = pictures(2, 1, (9, 8))
    chosen(*[0.9] * 8)
    assert torch.equal(straight(jitter(saturation=0.5, hue=0.5), x)[0], x)
    torch.testing.assert_close(straight(jitter(brightness=0.5), x)[0], (1.4 * x).clamp(0, 1))


def test_colour_jitter_takes_every_order(chosen):
    x = pictures(1, 3, (9, 8))
    for first, second in (("brightness", "contrast"), ("contrast", "brightness")):
        places = [0.1, 0.2, 0.3, 0.4] if first == "brightness" else [0.2, 0.1, 0.3, 0.4]
        chosen(0.9, 0.1, 0.5, 0.5, *places)
        change = {"brightness": lambda z: F.adjust_brightness(z, 1.4), "contrast": lambda z: F.adjust_contrast(z, 0.6)}
        expected = change[second](change[first](x))
        torch.testing.assert_close(straight(jitter(brightness=0.5, contrast=0.5), x)[0], expected)


def test_colour_jitter_draws_its_factors_evenly():
    x = torch.full((800, 3, 1, 1), 0.3) + torch.arange(800).view(-1, 1, 1, 1) / 10_000
    new = run(jitter(brightness=0.4), x)[0]
    factor = (new / x).mean((1, 2, 3)).numpy()
    assert stats.kstest(factor, stats.uniform(0.6, 0.8).cdf).pvalue > 0.001


def test_lighting_by_hand(monkeypatch):
    vectors = torch.tensor(VECTORS)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(3), atol=1e-3, rtol=0)
    monkeypatch.setattr(rng, "normal", lambda like, rows=None: torch.tensor([[1.0, -2.0, 3.0]]).expand_as(like))
    x = torch.full((1, 3, 2, 2), 0.5)
    added = run("lighting(std=0.1)", x)[0] - x
    for c, row in enumerate(VECTORS):
        by_hand = 0.1 * (row[0] * VALUES[0] - 2 * row[1] * VALUES[1] + 3 * row[2] * VALUES[2])
        torch.testing.assert_close(added[0, c], torch.full((2, 2), by_hand), atol=1e-6, rtol=0)
    grey = run("lighting(std=0.1)", x[:, :1])[0] - x[:, :1]
    torch.testing.assert_close(grey[0, 0], added[0].mean(0), atol=1e-6, rtol=0)
    assert run("lighting(std=10)", x)[0].min() == 0


def test_lighting_has_the_covariance_it_says():
    n = 4000
    x = (0.5 + torch.arange(n) / 1e6).view(n, 1, 1, 1).expand(n, 3, 1, 1).contiguous()
    added = (run("lighting(std=0.2)", x)[0] - x)[:, :, 0, 0].double().numpy()
    axes = added @ np.array(VECTORS)
    assert np.allclose(axes.std(0), 0.2 * np.array(VALUES), rtol=0.06)
    assert np.allclose(axes.mean(0) / axes.std(0), 0, atol=0.06)
    assert np.abs(np.corrcoef(axes.T) - np.eye(3)).max() < 0.06


def test_blur_of_a_point_is_the_gaussian(chosen):
    x = torch.zeros(1, 1, 33, 47)
    x[0, 0, 16, 23] = 1
    for share, sigma in ((1.0, 2.0), (0.5, 1.05)):
        chosen(0.0, share)
        new = straight("blur(sigma=2, chance=1)", x)[0][0, 0]
        down, right = (torch.exp(-(torch.arange(n) - n // 2).square() / (2 * sigma**2)) for n in SIZE)
        expected = down[:, None] * right / (down.sum() * right.sum())
        torch.testing.assert_close(new, expected, atol=1e-5, rtol=0)
    chosen(0.0, 0.0)
    torch.testing.assert_close(straight("blur(sigma=2, chance=1)", x)[0], x)


def test_blur_as_often_as_it_says():
    x = pictures(1000, 1, (3, 3))
    new = run("blur(chance=0.3, sigma=5)", x)[0]
    changed = (new - x).abs().amax((1, 2, 3)) > 0
    assert stats.binomtest(int(changed.sum()), 1000, 0.3 * 0.98).pvalue > 0.001  # the weakest change no float
    assert torch.equal(run("blur(chance=0)", x)[0], x)


@pytest.mark.parametrize("value", ["black", "mean", "noise"])
def test_erasing_erases_one_rectangle(value):
    n, size = 300, (40, 60)
    x = 0.25 + pictures(n, 3, size) / 2
    new = run(f"erasing(chance=1, least=0.1, most=0.4, ratio=0.5, value={value})", x)[0]
    erased = (new != x).all(1)
    rows, columns = erased.any(2), erased.any(1)
    areas = (rows.sum(1) * columns.sum(1)) / 2400
    if value == "black":
        assert torch.equal(erased, rows[:, :, None] & columns[:, None, :])  # all of the rectangle and nothing else
        assert stats.kstest(areas.numpy(), stats.uniform(0.1, 0.3).cdf).pvalue > 0.001
        shape = columns.sum(1) / rows.sum(1)
        assert 0.48 < shape.min() < 0.7 < 1.4 < shape.max() < 2.1
    inside = new.movedim(1, -1)[erased]
    if value == "black":
        assert (inside == 0).all()
    elif value == "mean":
        mean = x.mean((2, 3))[:, None, None].expand(n, *size, 3)[erased]
        torch.testing.assert_close(inside, mean)
    else:
        assert stats.kstest(inside.flatten()[::97].numpy(), stats.uniform.cdf).pvalue > 0.001
        assert abs(np.corrcoef(inside[:, 0], inside[:, 1])[0, 1]) < 0.02
    assert torch.equal(new.movedim(1, -1)[~erased], x.movedim(1, -1)[~erased])


def test_erasing_where_and_how_often(chosen):
    x = pictures(1000, 1, (8, 8))
    changed = (run("erasing(chance=0.25)", x)[0] != x).flatten(1).any(1)
    assert stats.binomtest(int(changed.sum()), 1000, 0.25).pvalue > 0.001
    chosen(0, 0, 0.5, 0.99, 0)  # sure, the least area, square, below, left
    new = straight("erasing(least=0.25, most=0.5, ratio=0.5, value=black)", torch.ones(1, 1, 8, 8))[0]
    expected = torch.ones(1, 1, 8, 8)
    expected[..., 4:, :4] = 0
    assert torch.equal(new, expected)


@pytest.mark.parametrize("ratio", [0.0, 0.4, 0.6, 1.0])
def test_grid_mask_keeps_what_it_says(ratio, monkeypatch):
    """Over all places of a grid of 10 pixels each pixel is kept just as often as the formula says."""
    x, kept = torch.ones(1, 1, 20, 30), torch.zeros(20, 30)
    for down in range(10):
        for right in range(10):
            row = torch.tensor([0.0, 0.0, (down + 0.5) / 10, (right + 0.5) / 10], dtype=torch.float64)
            monkeypatch.setattr(rng, "uniform", lambda like, rows=None, row=row: row.expand_as(like))
            new = straight(f"grid-mask(chance=1, ratio={ratio}, least=0.5, most=0.5)", x)[0]
            assert float(new.mean()) == pytest.approx(1 - (1 - ratio) ** 2)  # whole periods
            kept += new[0, 0] / 100
    torch.testing.assert_close(kept, torch.full((20, 30), 1 - (1 - ratio) ** 2))


def test_grid_mask_period_and_value(chosen):
    x = 0.3 + pictures(1, 3, (20, 30)) / 2
    chosen(0, 0.5, 0, 0)
    new = straight("grid-mask(chance=1, ratio=0.5, least=0.2, most=0.6, value=mean)", x)[0]
    gone = ((torch.arange(20) % 8 < 4)[:, None] & (torch.arange(30) % 8 < 4)).expand(1, 3, 20, 30)
    torch.testing.assert_close(new, torch.where(gone, x.mean((2, 3), keepdim=True), x))


def test_grid_mask_as_often_as_it_says():
    x = pictures(1000, 1, (6, 6)).clamp(min=0.1)
    changed = (run("grid-mask(chance=0.7, least=0.5, most=0.5)", x)[0] != x).flatten(1).any(1)
    assert stats.binomtest(int(changed.sum()), 1000, 0.7).pvalue > 0.001


def test_mixup_is_the_blend_that_y_says():
    x, y = pictures(6), torch.eye(6)
    new, shares = run("mixup(alpha=1)", x, y)
    blended = torch.einsum("bk,kchw->bchw", shares, x)  # y is the identity: the shares are those of the pictures
    torch.testing.assert_close(new, blended)
    assert ((shares > 0).sum(1) == 2).all()
    assert (shares.diagonal() > 0).all()
    assert ((shares > 0).sum(0) == 2).all()  # each is the partner of one


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_draws_from_the_beta_distribution(alpha):
    n = 3000
    x = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1) / n
    own = run(f"mixup(alpha={alpha})", x, torch.eye(n))[1].diagonal().double().numpy()
    assert own.mean() == pytest.approx(0.5, abs=4 * own.std() / n**0.5)
    assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert stats.kstest(own[own > 1e-6], stats.beta(alpha, alpha).cdf).pvalue > 0.001 or alpha < 1
    inner = own[(own > 0.01) & (own < 0.99)]
    low, high = stats.beta(alpha, alpha).cdf([0.01, 0.99])
    assert stats.kstest(inner, lambda v: (stats.beta(alpha, alpha).cdf(v) - low) / (high - low)).pvalue > 0.001


def test_cutmix_labels_are_the_pixels_counted():
    n, size = 200, (24, 36)
    x = ((torch.arange(n) + 1.0) / n).view(n, 1, 1, 1).expand(n, 1, *size).contiguous()
    new, shares = run("cutmix", x, torch.eye(n))
    which = (new[:, 0] * n).round().long() - 1
    counted = torch.stack([torch.bincount(w.flatten(), minlength=n) for w in which]) / (24 * 36)
    torch.testing.assert_close(shares, counted, atol=1e-6, rtol=0)
    foreign = which != torch.arange(n)[:, None, None]
    rows, columns = foreign.any(2), foreign.any(1)
    assert torch.equal(foreign, rows[:, :, None] & columns[:, None, :])  # a rectangle
    assert ((foreign.flatten(1).sum(1) > 0) & (foreign.flatten(1).sum(1) < 864)).float().mean() > 0.9


def test_cutmix_pixels_stay_where_they_are():
    x = pictures(4)
    new = run("cutmix", x)[0]
    own = (new == x).all(1)
    other = torch.stack([(new == x[k]).all(1) for k in range(4)])
    assert other.any(0).all()
    assert (~own).any()


def test_cutmix_rectangle_by_hand(chosen):
    x = torch.stack([torch.zeros(1, 8, 16), torch.ones(1, 8, 16)])
    chosen(0.75, 0.0, 0.5, 0.5)  # a quarter is cut, in the middle
    new, shares = straight("cutmix(alpha=1)", x)
    expected = torch.zeros(8, 16)
    expected[2:6, 4:12] = 1
    assert torch.equal(new[0, 0], expected)
    assert shares[0].tolist() == [0.75, 0.25]
    chosen(0.75, 0.0, 0.0, 0.0)  # in the corner three quarters of that stick out
    new, shares = straight("cutmix(alpha=1)", x)
    assert float(new[0].sum()) == 2 * 4
    assert shares[0].tolist() == [1 - 8 / 128, 8 / 128]
    chosen(3 * 0.75**2 - 2 * 0.75**3, 0.0, 0.0, 0.5)  # where Beta(2, 2) has 0.75; at the top, in the middle across
    new, _ = straight("cutmix(alpha=2)", x)
    assert torch.equal(new[0, 0], torch.cat([expected[4:6], torch.zeros(6, 16)]))


def test_mosaic_shares_are_the_areas_counted():
    n, size = 60, (20, 30)
    x = ((torch.arange(n) + 1.0) / n).view(n, 1, 1, 1).expand(n, 1, *size).contiguous()
    new, shares = run("mosaic(margin=0.2, chance=1)", x, torch.eye(n))
    which = (new[:, 0] * n).round().long() - 1
    torch.testing.assert_close((which + 1.0) / n, new[:, 0], atol=1e-5, rtol=0)
    counted = torch.stack([torch.bincount(w.flatten(), minlength=n) for w in which]) / 600
    torch.testing.assert_close(shares, counted, atol=1e-6, rtol=0)
    assert ((shares > 0).sum(1) == 4).all()
    assert torch.equal(which[:, 0, 0], torch.arange(n))  # itself in the top left
    across = (which[:, 0] == which[:, 0, :1]).sum(1)
    down = (which[:, :, 0] == which[:, :1, 0]).sum(1)
    assert across.min() >= 6
    assert across.max() <= 24
    assert down.min() >= 4
    assert down.max() <= 16
    assert across.float().std() > 3
    assert down.float().std() > 2


def test_mosaic_shows_whole_pictures_in_their_proportions(chosen):
    x = pictures(4, 3, (20, 20))
    chosen(0, 0, 0.25, 0.5)  # the centre at row 5, column 10
    new, shares = straight("mosaic(margin=0, chance=1)", x)
    assert shares[0].tolist() == [0.125, 0.125, 0.375, 0.375]  # the keys are equal: the ring is 0, 1, 2, 3
    half = F.resize(x, [10, 10], antialias=True)
    torch.testing.assert_close(new[0, :, :5, :10], half[0, :, 2:7])
    torch.testing.assert_close(new[0, :, :5, 10:], half[1, :, 2:7])
    torch.testing.assert_close(new[0, :, 5:, :10], F.resize(x[2], [15, 15], antialias=True)[:, :, 2:12])
    torch.testing.assert_close(new[0, :, 5:, 10:], F.resize(x[3], [15, 15], antialias=True)[:, :, 2:12])
    assert torch.equal(covering(x[0], 20, 20), x[0])


def test_mosaic_as_often_as_it_says():
    x = pictures(600, 1, (4, 4))
    whole = run("mosaic(chance=0.3)", x, torch.eye(600))[1].diagonal() == 1
    assert stats.binomtest(600 - int(whole.sum()), 600, 0.3).pvalue > 0.001
    assert torch.equal(run("mosaic(chance=0)", x)[0], x)


TORCHVISION = {
    "identity": "Identity", "shear-x": "ShearX", "shear-y": "ShearY", "translate-x": "TranslateX",
    "translate-y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "colour": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize",
    "auto-contrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_rand_augment_operations_are_torchvisions(name):
    theirs = v2.RandAugment(interpolation=InterpolationMode.BILINEAR)
    space = theirs._AUGMENTATION_SPACE
    assert set(TORCHVISION) == set(OPERATIONS)
    assert set(TORCHVISION.values()) == set(space)
    mine = OPERATIONS[name]
    x = pictures(1, 3, (20, 40))[0]
    magnitudes, signed = space[TORCHVISION[name]]
    table = magnitudes(GREATEST + 1, 20, 40)
    assert mine.signed == signed
    assert mine.graded == (table is not None)
    for m in (0, 9, 30):
        strength = mine.most * m / GREATEST
        if table is not None:  # their table says where the pixels go, how many bits are left, what is not inverted
            scale = {"translate-x": 40, "translate-y": 20}.get(name, 1)
            same = {"posterize": 8 - round(strength), "solarize": 1 - strength}.get(name, strength * scale)
            assert float(table[m]) == pytest.approx(same, abs=1e-5)
    for strength in (
        (0.0,) if table is None else (0.25, -0.25) if signed else (1.0, 1.6) if name == "posterize" else (0.4,)
    ):
        told = {"posterize": 8 - round(strength), "solarize": 1 - strength}.get(name, strength)
        told *= {"translate-x": 40, "translate-y": 20}.get(name, 1)
        theirs_x = theirs._apply_image_or_video_transform(
            x.clone(), TORCHVISION[name], told, interpolation=InterpolationMode.BILINEAR, fill={torch.Tensor: None}
        )
        mine_x = mine.apply(x, strength)
        # what comes in from outside is black there and the mean here: compared where nothing does
        inside = F.affine(torch.ones_like(x), 0.0, [0, 0], 1.0, [0.0, 0.0])
        if name in ("shear-x", "shear-y", "translate-x", "translate-y", "rotate"):
            inside = theirs._apply_image_or_video_transform(
                inside, TORCHVISION[name], told, interpolation=InterpolationMode.BILINEAR, fill={torch.Tensor: None}
            )
        whole = inside > 0.999
        assert whole.float().mean() > 0.5
        torch.testing.assert_close(mine_x[whole], theirs_x[whole], atol=1e-4, rtol=0)
        outside = inside < 0.001
        ground = x.mean((1, 2), keepdim=True).expand_as(x)
        torch.testing.assert_close(mine_x[outside], ground[outside], atol=1e-4, rtol=0)


def test_rand_augment_of_no_magnitude_leaves_all_but_two(chosen):
    x = pictures(1)
    for k, name in enumerate(OPERATIONS):
        chosen((k + 0.5) / len(OPERATIONS), 0.9)
        new = straight("rand-augment(operations=1, magnitude=0)", x)[0]
        if name in ("auto-contrast", "equalize"):
            torch.testing.assert_close(new[0], OPERATIONS[name].apply(x[0], 0))
        else:
            assert torch.equal(new, x), name


def test_rand_augment_runs_what_it_draws(chosen):
    x = pictures(1)
    for k, (name, operation) in enumerate(OPERATIONS.items()):
        for sign in (0.9, 0.1):
            strength = operation.most * 12 / 30 * (-1 if operation.signed and sign < 0.5 else 1)
            chosen((k + 0.5) / len(OPERATIONS), sign)
            new = straight("rand-augment(operations=1, magnitude=12)", x)[0]
            torch.testing.assert_close(new[0], operation.apply(x[0], strength), msg=name)
    first, second = OPERATIONS["solarize"], OPERATIONS["brightness"]
    names = list(OPERATIONS)
    row = [names.index("solarize"), 0, names.index("brightness"), 14]
    chosen(*[(r + 0.5) / 14 if r < 14 else 0.9 for r in row])
    new = straight("rand-augment(operations=2, magnitude=15)", x)[0]
    torch.testing.assert_close(new[0], second.apply(first.apply(x[0], 0.5), 0.45))


def test_rand_augment_draws_all_of_them_evenly(monkeypatch):
    seen = []
    for name, operation in list(OPERATIONS.items()):
        note = replace(operation, apply=lambda x, s, name=name: seen.append((name, s > 0)) or x)
        monkeypatch.setitem(OPERATIONS, name, note)
    run("rand-augment(operations=3)", pictures(700, 1, (2, 2)))
    counts = [sum(n == name for n, _ in seen) for name in OPERATIONS]
    assert sum(counts) == 2100
    assert stats.chisquare(counts).pvalue > 0.001
    up = [positive for name, positive in seen if OPERATIONS[name].signed]
    assert stats.binomtest(sum(up), len(up), 0.5).pvalue > 0.001


# --- the runner -------------------------------------------------------------------------------------------------------


def test_reading_puts_resizing_first_and_mixing_last():
    assert [str(c) for c in read("mixup, flip, crop(scale=0.5), lighting")] == [
        "crop(scale=0.5)", "flip", "lighting", "mixup"
    ]  # fmt: skip
    assert [str(c) for c in read("cutmix, mixup")] == ["cutmix", "mixup"]
    for nothing in ("", "none", " None "):
        assert read(nothing) == ()
    with pytest.raises(Refused, match="both resize"):
        read("crop, crop(scale=0.5)")
    with pytest.raises(Refused, match="did you mean flip"):
        read("flop")
    with pytest.raises(Refused, match="no option 'size'"):
        read("crop(size=3)")


def several(n: int = 4) -> list[Tensor]:
    return [(pictures(1, 3, (40 + 7 * i, 60 - 5 * i))[0] * 255).round().byte() for i in range(n)]


def test_augment_takes_pictures_of_any_size():
    given, y = several(), torch.eye(4)
    was = [p.clone() for p in given]
    calls = read("crop, flip, colour-jitter, mixup(alpha=1)")
    x, shares = augment(given, y, calls, (24, 32), seed=0)
    assert x.shape == (4, 3, 24, 32)
    assert x.dtype == torch.float32
    assert 0 <= x.min() <= x.max() <= 1
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    assert all(torch.equal(a, b) for a, b in zip(given, was, strict=True))
    again, _ = augment([p.float() / 255 for p in given], y, calls, (24, 32), seed=0)
    assert torch.equal(again, x)
    assert not torch.equal(augment(given, y, calls, (24, 32), seed=1)[0], x)


def test_augment_gives_a_picture_its_own_chance():
    given, y = several(), torch.eye(4)
    calls = read("crop, flip, affine, erasing, rand-augment, lighting, blur, grid-mask, colour-jitter")
    whole, _ = augment(given, y, calls, (24, 32), seed=3)
    single, _ = augment(given[2:3], y[2:3], calls, (24, 32), seed=3)
    assert torch.equal(single[0], whole[2])
    back, _ = augment(given[::-1], y, calls, (24, 32), seed=3)
    assert torch.equal(back.flip(0), whole)


def test_augment_does_the_calls_in_their_order():
    x = pictures(2, 3, (20, 20))
    call = Call(parse("flip", "augmentations").method, {"chance": 1.0})
    twice, _ = augment(list(x), torch.eye(2), [call] * 2, (20, 20), seed=0)
    assert torch.equal(twice, x)
    once, _ = augment(list(x), torch.eye(2), [call], (20, 20), seed=0)
    assert torch.equal(once, x.flip(-1))
    none, y = augment(list(x), torch.eye(2), (), (20, 20), seed=0)
    assert torch.equal(none, x)
    assert torch.equal(y, torch.eye(2))


def test_augment_without_resizing_wants_the_size():
    x = pictures(2, 3, (20, 20))
    for size in ((20, 21), (40, 20)):
        with pytest.raises(ValueError, match="not of size"):
            augment(list(x), torch.eye(2), read("flip"), size, seed=0)
    with pytest.raises(ValueError, match="not of size"):
        augment([x[0], x[1, :1]], torch.eye(2), read("flip"), (20, 20), seed=0)
    for bad in (x[0] * 2, x[0] - 1, x[0] * math.nan, x[0].long(), x[0, 0], x[0, :2]):
        with pytest.raises(ValueError, match=r"picture|pixels"):
            augment([bad], torch.ones(1, 1), (), (20, 20), seed=0)
    for few in (torch.eye(3), torch.ones(2)):
        with pytest.raises(ValueError, match="one row"):
            augment(list(x), few, (), (20, 20), seed=0)
    with pytest.raises(ValueError, match="at least one"):
        augment([], torch.zeros(0, 2), (), (20, 20), seed=0)
    with pytest.raises(Refused, match="flip: chance must be from 0 to 1, not 3"):
        augment(list(x), torch.eye(2), read("flip(chance=3)"), (20, 20), seed=0)


MINE = '''
"""A user's own augmentations, good and bad."""
import torch
from clearsight.core import rng
from clearsight.core.catalogue import method

def brighter(x, y, *, k: float = 0.1):
    return x + k, y

@method(paper="control", claims="mixes")
def mean_of_all(x, y):
    return x.mean(0, keepdim=True).expand_as(x), y.mean(0, keepdim=True).expand_as(y)

def corner(x, y, *, size: tuple[int, int]):
    return x[..., :size[0], :size[1]], y

@method(paper="control", claims="mixes resizes")
def everything(x, y, *, size: tuple[int, int]):
    return x, y

def greedy(x, y, *, eps: float):
    return x, y

def misshapen(x, y):
    return x[..., 1:], y

def relabelled(x, y):
    return x, y[:, :1]

def not_finite(x, y):
    return x / 0, y

def no_number(x, y):
    x[-1, -1, -1, -1] = float("nan")
    return x, y

def too_little(x, y):
    return x, y * 0.999

def negative(x, y):
    return x, torch.cat([y[:, :1] - 1, y[:, 1:-1], y[:, -1:] + 1], 1)

def one_thing(x, y):
    return x

def words(x, y):
    return "x", y

def falls(x, y):
    raise KeyError("k")

def writes(x, y):
    return x.zero_(), y.fill_(0.5)

def wipes(x, y, *, size: tuple[int, int]):
    return x.zero_()[..., : size[0], : size[1]], y

def chance(x, y):
    u = rng.uniform(y[:, :1])
    return x, torch.cat([u, 1 - u], 1)
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return "./mine.py"


def test_a_file_of_ones_own(mine):
    x, y = pictures(2, 3, (20, 20)), torch.eye(2)
    assert [str(c) for c in read(f"{mine}:mean_of_all, {mine}:brighter(k=0.5), {mine}:corner")] == [
        f"{mine}:corner", f"{mine}:brighter(k=0.5)", f"{mine}:mean_of_all"
    ]  # fmt: skip
    new, _ = augment(list(x), y, read(f"{mine}:brighter(k=0.5)"), (20, 20), seed=0)
    assert torch.equal(new, (x + 0.5).clamp(max=1))  # held within the pixels there are
    black = "grid-mask(chance=1, ratio=0)"
    for words, left in ((f"{black}, {mine}:brighter(k=0.5)", 0.5), (f"{mine}:brighter(k=0.5), {black}", 0.0)):
        assert (augment(list(x), y, read(words), (20, 20), seed=0)[0] == left).all()  # in the order in which they stand
    new, shares = augment(list(x), y, read(f"{mine}:corner, {mine}:mean_of_all"), (7, 9), seed=0)
    torch.testing.assert_close(new[0], x[:, :, :7, :9].mean(0))
    assert (shares == 0.5).all()
    with pytest.raises(Refused, match="both resizes and mixes"):
        read(f"{mine}:everything")
    with pytest.raises(Refused, match="needs eps"):
        read(f"{mine}:greedy")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("misshapen", r"pictures \(2, 3, 20, 19\)"),
        ("relabelled", r"shares \(2, 1\)"),
        ("not_finite", "not finite"),
        ("no_number", "not finite"),
        ("too_little", "sum to 1"),
        ("negative", "negative"),
        ("one_thing", "gave Tensor, not two"),
        ("words", "not two tensors"),
        ("falls", "failed: KeyError"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(mine, bad, why):
    with pytest.raises(Refused, match=rf"mine.py:{bad}.*{why}"):
        augment(list(pictures(2, 3, (20, 20))), torch.eye(2), read(f"{mine}:{bad}"), (20, 20), seed=0)


def test_the_callers_tensors_are_copied(mine):
    x, y = pictures(2, 3, (20, 20)), torch.eye(2)
    was = x.clone()
    augment(list(x), y, read(f"{mine}:writes"), (20, 20), seed=0)
    augment([x[0]], y[:1], read(f"crop, {mine}:writes"), (20, 20), seed=0)
    augment([x[0]], y[:1], read(f"{mine}:wipes, {mine}:writes"), (20, 20), seed=0)
    assert torch.equal(x, was)
    assert torch.equal(y, torch.eye(2))


def test_the_same_call_in_another_place_draws_anew(mine):
    x, y = list(pictures(2, 3, (20, 20))), torch.eye(2)
    shares = [augment(x, y, read(", ".join([f"{mine}:chance"] * n)), (20, 20), seed=0)[1] for n in (1, 2, 1)]
    assert torch.equal(shares[0], shares[2])
    assert (shares[0] != shares[1]).all()


# --- sheets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def few() -> Pictures:
    found = demo_pictures()
    return replace(found, pictures=found.pictures[:3])


PREPROCESS = Preprocess((48, 40), (0.5,) * 3, (0.5,) * 3, resize=48)


def test_a_sheet_for_each_picture(few, tmp_path):
    sheets = augment_pictures(few, ["flip(chance=1)", "crop, mixup"], PREPROCESS, lambda: tmp_path, samples=2, seed=4)
    assert [drawn.picture for drawn in sheets.pictures] == [p.name for p in few.pictures]
    assert sheets.pictures[0].augmentations == ("flip(chance=1.0)", "crop, mixup")
    assert sheets.seed == 4
    assert sheets.folder == tmp_path
    assert sheets.lines()[-1] == sheets.as_dict()["folder"] == str(tmp_path)
    assert repr(sheets) == f"<AugmentedPictures in {tmp_path}, 3 pictures: flip(chance=1.0); crop, mixup>"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{p.path.stem}.png" for p in few.pictures)
    with Image.open(sheets.pictures[0].sheet) as image:
        a = np.asarray(image)
    x = to_pixels(open_picture(few.pictures[0].path), PREPROCESS)
    own = (x * 255).round().byte().movedim(0, -1).repeat_interleave(12, 0).repeat_interleave(12, 1).numpy()
    high, wide = own.shape[:2]
    top, left, gap = 84, 40, 28  # the title and the margins
    assert a.shape[1] == 2 * left + 3 * wide + 2 * gap
    for k, expected in enumerate((own, own[:, ::-1], own[:, ::-1])):
        begin = left + k * (wide + gap)
        assert np.array_equal(a[top : top + high, begin : begin + wide], expected)


def test_sheets_show_what_augment_gives(few, tmp_path, monkeypatch):
    """The tiles of a row are the picture and its versions, and the label's shares stand below."""
    seen = []
    real = augment_preview.sheet
    monkeypatch.setattr(
        augment_preview, "sheet", lambda rows, **words: seen.append((rows, words)) or real(rows, **words)
    )
    monkeypatch.setattr(augment_preview, "photo", lambda x: Image.fromarray((x[0] * 255).byte().numpy()))
    augment_pictures(few, ["flip(chance=1)", "mixup(alpha=1)"], PREPROCESS, lambda: tmp_path, samples=3)
    assert len(seen) == 3
    (flips, mixed), words = seen[0]
    name = few.pictures[0].labels[0]
    assert words["title"] == few.pictures[0].name
    assert flips[0][1].startswith("flip(chance=1.0)\nMirror each picture")
    own = np.asarray(flips[0][0])
    assert len(flips) == 4
    for tile, caption in flips[1:]:
        assert np.array_equal(np.asarray(tile), own[:, ::-1])
        assert caption == ""
    assert len({np.asarray(t).tobytes() for t, _ in mixed}) == 4
    for _, caption in mixed[1:]:
        assert name in caption
        shares = [float(s) for s in re.findall(r"\d\.\d\d", caption)]
        assert sum(shares) == pytest.approx(1, abs=0.011)
        assert shares == sorted(shares, reverse=True)


def test_augment_gives_no_picture_itself_to_be_mixed_with(tmp_path):
    """Of two pictures, black and white, every mixed version is as grey as the share of white says."""
    images = []
    for name, value in ("black", 0), ("white", 255):
        image = Image.new("L", (20, 20), value)
        image.save(tmp_path / f"{name}.png")
        images.append((Picture(tmp_path / f"{name}.png", f"{name}.png", (name,)), image))
    for own in images:
        for x, words in augmented_versions(
            *own, read("mixup(alpha=1)"), images, Preprocess((20, 20), (0.5,), (0.5,)), 6, 0
        ):
            shares = dict(part.split() for part in words.split(", "))
            assert set(shares) == {"black", "white"}
            assert x.mean().item() == pytest.approx(float(shares["white"]), abs=0.006)


def test_one_picture_alone_is_not_mixed(few, tmp_path):
    single = replace(few, pictures=few.pictures[:1])
    sheets = augment_pictures(single, ["flip", "cutmix"], PREPROCESS, lambda: tmp_path, samples=1)
    assert "left out cutmix: it mixes pictures: give several" in sheets.lines()
    assert sheets.as_dict()["left_out"] == [{"augmentations": "cutmix", "why": "it mixes pictures: give several"}]
    assert sheets.pictures[0].augmentations == ("flip",)
    with pytest.raises(Refused, match="mixup: it mixes pictures: give several"):
        augment_pictures(single, ["mixup"], PREPROCESS, lambda: tmp_path, samples=1)


def test_all_of_the_catalogue_where_nothing_is_asked_for(few, tmp_path):
    sheets = augment_pictures(replace(few, pictures=few.pictures[:2]), [], PREPROCESS, lambda: tmp_path, samples=1)
    assert sheets.pictures[1].augmentations == tuple(EVERY)


def test_broken_pictures_are_named_and_nothing_is_an_error(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "broken.png").write_bytes(b"\x89PNG nothing")
    Image.new("L", (50, 60), 90).save(photos / "grey.png")
    grey = Preprocess((20, 20), (0.5,), (0.5,))
    sheets = augment_pictures(folder(photos), ["crop, flip"], grey, lambda: out, samples=1)
    assert [file for file, _ in sheets.broken] == ["broken.png"]
    assert sheets.as_dict()["broken"][0]["file"] == "broken.png"
    assert sheets.lines()[0].startswith("left out broken.png: ")
    assert [drawn.picture for drawn in sheets.pictures] == ["grey.png"]
    (photos / "grey.png").unlink()
    for wrong, options, why in (
        (["flip"], {}, "none of the pictures can be read"),
        (["none"], {}, "name an augmentation"),
        (["flip"], {"samples": 0}, "samples=0"),
        (["flp"], {}, "did you mean flip"),
    ):
        with pytest.raises(Refused, match=why):
            augment_pictures(folder(photos), wrong, grey, lambda: out, **options)
