"""The numbers of Libra-CAM, of the calibration it shares with all methods, and what its library of references keeps."""

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.data.datasets import open_data, pixels
from clearsight.errors import Notice, Refused
from clearsight.explainers.common import references
from clearsight.explainers.common.references import cache_folder, library
from clearsight.perturbation.map_thresholds import (
    LEVELS,
    best_level,
    calibrated,
    chances,
    mask_by_map,
    measures,
    rises_through,
    stretched,
    without_lowest,
    worth_keeping,
)
from clearsight.runner.run import explain
from clearsight.testing import linear

MEAN, STD = (0.4, 0.6, 0.2), (0.25, 0.2, 0.5)  # the mean is 102, 153, 51 of 255: a file can hold it


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 3) -> Classifier:
    """A smooth network of 8 × 12 pictures; layer 1 (4 × 6) has a gradient that is different everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
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
    return Classifier(net.eval(), Preprocess((8, 12), MEAN, STD), tuple("abc"))


@pytest.fixture
def model() -> Classifier:
    return network()


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(4, 3, 8, 12, generator=seeded(1))


def write(folder: Path, n: int, seed: int = 5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> str:
    """Twelve references, and a cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "photos", 12)
    return "photos"


# --- a slow replica ---------------------------------------------------------------------------------------------------


def at_layer(model: Classifier, x: Tensor, layer: int) -> Tensor:
    return model.net[: layer + 1](model.normalised(x))


def probability(model: Classifier, x: Tensor, k: int) -> float:
    with torch.no_grad():
        return float(model(x[None]).double().softmax(1)[0, k])


def through(x: Tensor, mask: Tensor) -> Tensor:
    """The picture times the mask after normalisation, back in pixels."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std * mask * std + mean


def slow_libra(
    model: Classifier, x: Tensor, k: int, them: list[Tensor], count: int, most: float, filtering: bool, threshold
) -> tuple[Tensor, dict[str, float]]:
    """One picture, written from the paper's steps: Python lists, and a loop for every sum."""
    a = at_layer(model, x[None], 1).detach()[0].requires_grad_()
    (g,) = torch.autograd.grad(model.net[2:](a[None])[0, k], a)
    shown = sorted((probability(model, r, k), i) for i, r in enumerate(them))
    chosen = [them[i] for p, i in shown if p < most][:count]
    masks, gaps = [], []
    with torch.no_grad():
        for r in chosen:
            away = at_layer(model, r[None], 1)[0]
            b = [[0.0] * 6 for _ in range(4)]
            for i in range(4):
                for j in range(6):
                    for c in range(6):
                        b[i][j] += float(g[c, i, j]) * (float(a[c, i, j]) - float(away[c, i, j]))
            low, high = min(map(min, b)), max(map(max, b))
            m = torch.tensor([[(v - low) / (high - low) for v in row] for row in b])
            masks.append(F.interpolate(m[None, None], (8, 12), mode="bilinear", align_corners=False)[0, 0])
            gaps.append(sum(map(sum, b)) - float((model(x[None]) - model(r[None]))[0, k]))
    before = probability(model, x, k)
    rises = [probability(model, through(x, m), k) - before for m in masks]
    keep = list(range(len(masks)))
    if filtering and any(d > 0 for d in rises):
        up = [d for d in rises if d > 0]
        m = sum(up) / len(up)
        s = math.sqrt(sum((d - m) ** 2 for d in up) / len(up))
        keep = [i for i, d in enumerate(rises) if d > 0 and d >= m - s - 1e-6]
    elif filtering:
        m = sum(rises) / len(rises)
        s = math.sqrt(sum((d - m) ** 2 for d in rises) / len(rises))
        keep = [i for i, d in enumerate(rises) if d > m + s] or keep
    mean = sum(masks[i] for i in keep) / len(keep)
    order = sorted(float(v) for v in mean.flatten())
    best, level = -1.0, 0
    for t in range(0, 100, 10) if threshold is None else [threshold]:
        cut = order[round(96 * t / 100)]
        tried = torch.tensor([[float(v) if v >= cut else 0.0 for v in row] for row in mean])
        rise = max(0.0, probability(model, through(x, tried), k) - before)
        if rise > best:
            best, level, found = rise, t, tried
    told = {"references": len(chosen), "references kept": len(keep), "threshold": level}
    return found, {**told, "completeness residual": sum(gaps[i] for i in keep) / len(keep)}


@pytest.mark.parametrize("threshold", [None, 0, 40])
@pytest.mark.parametrize("filtering", [True, False])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_libra_cam_replica(model, pictures, folder, k, filtering, threshold):
    """For every class, top or not: the reference implementation explains its top class whatever is asked."""
    call = f"libra-cam(references={folder}, count=6, most=0.9, filtering={filtering}, threshold={threshold}, layer=1)"
    e = explain(model, pictures, call, ClassScore(k))
    them = list(pixels(model, folder))
    for i, x in enumerate(pictures):
        wanted, told = slow_libra(model, x, k, them, 6, 0.9, filtering, threshold)
        torch.testing.assert_close(e.maps[i], wanted, rtol=1e-4, atol=1e-5)
        for name, value in told.items():
            assert float(e.diagnostics[name][i]) == pytest.approx(value, abs=1e-4), name


def test_libra_cam_filters_both_ways_in_the_replicas_pictures(model, pictures, folder):
    """What the replica is compared on has pictures with and without a mask that helps, and thresholds of many sizes."""
    kept, levels = [], []
    for k in range(3):
        call = f"libra-cam(references={folder}, count=6, most=0.9, layer=1)"
        e = explain(model, pictures, call, ClassScore(k))
        kept += e.diagnostics["references kept"].tolist()
        levels += e.diagnostics["threshold"].tolist()
    assert len(set(kept)) >= 3
    assert len(set(levels)) >= 3


def test_libra_cam_most_and_count(model, pictures, folder):
    """References that show the class are left out; of the others those that show least of it come first."""
    with torch.no_grad():
        p = model(pixels(model, folder)).softmax(1)[:, 1]
    bound = float(p.sort().values[4:6].mean())
    for count in (1, 3, 5, 30):
        call = f"libra-cam(references={folder}, count={count}, most={bound}, filtering=false, layer=1)"
        e = explain(model, pictures, call, ClassScore(1))
        n = min(count, 5)
        assert e.diagnostics["references"].tolist() == [n] * 4
        assert float(e.diagnostics["probability in references"][0]) == pytest.approx(float(p.sort().values[:n].mean()))
    with pytest.raises(
        Refused, match=r"none of the 12 references in photos gives 'logit of b' a probability below most=1e-09"
    ):
        explain(model, pictures, f"libra-cam(references={folder}, most=1e-9, layer=1)", ClassScore(1))


def slow_order(x: Tensor, n: int) -> Tensor:
    """A picture whose pieces stand in another order, pixel by pixel."""
    places = []
    for side in x.shape[1:]:
        m = min(n, side)
        sizes = [side // m + (i < side % m) for i in range(m)]
        starts = [sum(sizes[:i]) for i in range(m)]
        order = [i for i in range(m) if i % 2] + [i for i in range(m) if not i % 2]
        places.append([starts[i] + j for i in order for j in range(sizes[i])])
    rows = [torch.stack([x[:, i, j] for j in places[1]], 1) for i in places[0]]
    return torch.stack(rows, 1)


def stand_ins(x: Tensor) -> list[Tensor]:
    mean = torch.tensor(MEAN).view(3, 1, 1).expand_as(x)
    return [mean, *(slow_order(x, n) for n in (2, 3, 4, 6, 8, 12, 16))]


@pytest.mark.parametrize("most", [0.35, 0.26])
def test_libra_cam_without_references_has_the_picture_out_of_order(model, pictures, most):
    numbers = set()
    for k in range(3):
        e = explain(model, pictures, f"libra-cam(most={most}, layer=1)", ClassScore(k))
        for i, x in enumerate(pictures):
            them = stand_ins(x)
            if not any(probability(model, r, k) < most for r in them):
                wanted, told = slow_libra(model, x, k, them[:1], 30, 2.0, True, None)
            else:
                wanted, told = slow_libra(model, x, k, them, 30, most, True, None)
            torch.testing.assert_close(e.maps[i], wanted, rtol=1e-4, atol=1e-5)
            for name, value in told.items():
                assert float(e.diagnostics[name][i]) == pytest.approx(value, abs=1e-4), name
            numbers.add(told["references"])

    assert len(numbers) > 2  # some have many, some few


def test_libra_cam_with_one_reference(model, pictures, folder, tmp_path):
    """Of a folder that holds the mean colour alone, where that is all there is to the stand-ins."""
    (tmp_path / "one").mkdir()
    Image.new("RGB", (12, 8), (102, 153, 51)).save(tmp_path / "one" / "mean.png")
    for options in "", ", threshold=20", ", filtering=false":
        without = explain(model, pictures, f"libra-cam(layer=1, most=1e-12{options})", ClassScore(2))
        with_it = explain(model, pictures, f"libra-cam(references=one, most=1.0, layer=1{options})", ClassScore(2))
        torch.testing.assert_close(without.maps, with_it.maps, rtol=1e-3, atol=1e-4)
        assert without.diagnostics["references kept"].tolist() == [1.0] * 4
        torch.testing.assert_close(without.diagnostics, with_it.diagnostics, rtol=1e-3, atol=1e-4)


def test_libra_cams_maps_are_complete_where_the_network_is_linear_behind_the_layer(pictures, folder):
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 96, 3))
    straight = Classifier(net, Preprocess((8, 12), MEAN, STD), tuple("abc"))
    for target in ClassScore([0, 1, 2, 0]), Margin(1, 2):
        e = explain(straight, pictures, f"libra-cam(references={folder}, most=1.0, layer=1)", target)
        assert e.diagnostics["completeness residual"].abs().max() < 1e-4
    bent = explain(network(), pictures, f"libra-cam(references={folder}, most=1.0, layer=1)", ClassScore(1))
    assert bent.diagnostics["completeness residual"].abs().max() > 0.1


def test_libra_cam_of_a_margin_asks_about_the_first_of_the_two(model, pictures, folder):
    """Its probability is that of a where only a and b are possible."""
    outputs = torch.tensor([[1.0, 3.0, -2.0]])
    e = outputs[0].exp()
    assert float(chances(model, Margin(0, 1), outputs)) == pytest.approx(float(e[0] / (e[0] + e[1])))
    assert float(chances(model, ClassScore(1), outputs)) == pytest.approx(float(e[1] / e.sum()))
    assert float(chances(model, ClassScore(1, of="prob"), outputs)) == pytest.approx(float(e[1] / e.sum()))
    by_themselves, values = (replace(model, scores=s) for s in ("multi-label", "values"))
    assert float(chances(by_themselves, ClassScore(1), outputs)) == pytest.approx(float(e[1] / (1 + e[1])))
    assert float(chances(values, ClassScore(1), outputs)) == 3.0
    assert float(chances(values, Margin(0, 1), outputs)) == -2.0
    with pytest.raises(Refused, match="the model gives values"):
        explain(values, pictures, "libra-cam(layer=1)", ClassScore(1, of="value"))
    a, b = (
        explain(model, pictures, f"libra-cam(references={folder}, most=1.0, layer=1)", t).maps
        for t in (Margin(0, 1), Margin(1, 0))
    )
    assert all(not torch.allclose(i, j) for i, j in zip(a, b, strict=True))


def test_libra_cam_refuses(model, pictures, folder, tmp_path):
    for options, words in (
        ("count=0", "count must be at least 1"),
        ("most=0", "the probability most above 0"),
        ("threshold=95", "from 0 to 90"),
        ("threshold=-1", "from 0 to 90"),
        ("references=nowhere", "no pictures at nowhere"),
    ):
        with pytest.raises(Refused, match=words):
            explain(model, pictures, f"libra-cam({options}, layer=1)")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    of_any_size = Classifier(net, Preprocess((8, 12), MEAN, STD), tuple("abc"))
    with pytest.raises(Refused, match=r"references of size \(8, 12\).*\(10, 12\): leave references= out"):
        explain(of_any_size, torch.rand(1, 3, 10, 12), f"libra-cam(references={folder})")
    (tmp_path / "rubbish").mkdir()
    (tmp_path / "rubbish" / "a.png").write_bytes(b"no picture")
    with pytest.raises(Refused, match=r"no reference in rubbish can be read; the first is a.png"):
        explain(model, pictures, "libra-cam(references=rubbish, layer=1)")


# --- calibration, for libra_cam and for every other method ------------------------------------------------------------


def test_without_lowest_takes_an_exact_count():
    maps = torch.rand(3, 7, 11, generator=seeded(0)) + 0.1
    for percent in LEVELS:
        found = without_lowest(maps, float(percent))
        assert (found == 0).flatten(1).sum(1).tolist() == [round(77 * percent / 100)] * 3
        kept = found > 0
        assert torch.equal(found[kept], maps[kept])
        for f, m, k in zip(found, maps, kept, strict=True):
            assert percent == 0 or m[k].min() > m[~k].max(), f
    each = without_lowest(maps, torch.tensor([0.0, 50.0, 90.0]))
    assert (each == 0).flatten(1).sum(1).tolist() == [0, 38, 69]


def test_without_lowest_keeps_equal_places_together():
    """Also those that rounding alone tells apart: on which side they fall must not depend on the batch."""
    plateau = torch.tensor([[0.1, 0.5, 0.5, 0.5 + 2e-7, 0.9]])
    for percent in (20.0, 40.0, 60.0):
        assert without_lowest(plateau, percent).tolist() == [[0.0, *plateau[0, 1:].tolist()]]
    assert (without_lowest(plateau, 80.0) > 0).tolist() == [[False, False, False, False, True]]
    zeros = torch.tensor([[0.0, 0.0, 0.0, 0.2, 0.4]])
    assert torch.equal(without_lowest(zeros, 20.0), zeros)
    assert torch.equal(without_lowest(torch.full((1, 4), 0.7), 90.0), torch.full((1, 4), 0.7))


def bars() -> tuple[Classifier, Tensor, Tensor]:
    """Ten pixels; the class speaks for the last alone, and each other pixel speaks against it."""
    model = linear([[-1.0] * 9 + [4.0], [0.0] * 10])
    return model, torch.ones(1, 1, 1, 10), torch.linspace(0.1, 1, 10).view(1, 1, 10)


def test_libra_cams_calibration_returns_the_map_that_was_scored():
    """The reference returns ten points more than it scored, and nothing at all where 90 % wins, as it does here."""
    model, x, maps = bars()
    found, level = calibrated(model, x, ClassScore(0), maps)
    assert level.tolist() == [90.0]
    assert found.flatten().tolist() == [0.0] * 9 + [1.0]
    rises = rises_through(model, x, ClassScore(0), maps)
    scored = float(rises[0, 9])
    assert scored == float(rises.max())
    with torch.no_grad():
        after, before = (chances(model, ClassScore(0), model(p)) for p in (mask_by_map(model, x, found), x))
    assert float(after - before) == pytest.approx(scored)
    for t in range(10):  # by hand: the soft mask times the weights of what is left
        left = [0.0 if i < t else (i + 1) / 10 for i in range(10)]
        score = 4 * left[9] - sum(left[:9])
        after, before = 1 / (1 + math.exp(-score)), 1 / (1 + math.exp(5))
        assert float(rises[0, t]) == pytest.approx(after - before, abs=1e-6)


def test_libra_cams_calibration_takes_nothing_away_where_nothing_helps():
    """The reference takes 10 %."""
    _, x, maps = bars()
    against = linear([[1.0] * 10, [0.0] * 10])
    found, level = calibrated(against, x, ClassScore(0), maps)
    assert level.tolist() == [0.0]
    assert torch.equal(found, maps)
    rises = [[0.2, 0.3, 0.300001], [0.0, 0.0, 0.0], [0.1, 0.2, 0.4], [-0.2, -0.1, -0.3], [-0.1, 0.0, -0.2]]
    assert best_level(torch.tensor(rises)).tolist() == [1, 0, 2, 0, 0]


def test_what_is_muted_has_the_mean_colour(pictures):
    model = network()
    found = mask_by_map(model, pictures, torch.zeros(4, 8, 12))
    torch.testing.assert_close(found, torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(pictures))
    masks = torch.rand(4, 8, 12, generator=seeded(3))
    wanted = model.normalised(pictures) * masks[:, None]
    torch.testing.assert_close(model.normalised(mask_by_map(model, pictures, masks)), wanted)


def test_stretched():
    maps = torch.tensor([[-2.0, 0.0, 2.0], [5.0, 5.0, 5.0], [0.0, 1e-30, 0.0]])
    wanted = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(stretched(maps), wanted)


@pytest.mark.parametrize(
    ("rises", "wanted"),
    [
        ([0.1, 0.3], [1, 1]),  # of two, the lower is exactly the mean less the standard deviation
        ([0.1, 0.1, 0.1], [1, 1, 1]),
        ([0.5, 0.5, 0.5, 0.1], [1, 1, 1, 0]),  # m = .4, s = .173
        ([0.5, 0.5, 0.5, 0.1, -0.9], [1, 1, 1, 0, 0]),  # what falls has no part in m and s
        ([1.0, 0.01, 0.01, 0.01, -0.1], [1, 1, 1, 1, 0]),  # m - s is below 0
        ([0.0, -0.1], [1, 1]),  # none rises, and none is above m + s
        ([-0.1, -0.1, -0.1, -0.1, 0.0], [0, 0, 0, 0, 1]),
        ([-0.3], [1]),
        ([0.3], [1]),
        ([0.0], [1]),
        ([0.0, 0.0], [1, 1]),
        ([0.2, -0.2], [1, 0]),
    ],
)
def test_libra_cams_filter_of_references(rises, wanted):
    for scale in (1.0, 1e-7, 0.3):  # of improbable classes, too
        assert worth_keeping(torch.tensor(rises) * scale).tolist() == [bool(w) for w in wanted]


def test_libra_cams_filter_is_not_at_the_mercy_of_rounding():
    """Of two values the lower is the mean less the standard deviation: it stays, however these are rounded."""
    two = torch.rand(300, 2, generator=seeded(0)) * torch.tensor([1.0, 1e-9])
    assert all(bool(worth_keeping(pair).all()) for pair in two)
    assert all(bool(worth_keeping(-pair).all()) for pair in two)  # nor is the higher one above their sum


def test_measures_are_absolute_and_strict():
    m = measures(torch.tensor([0.25, -0.5, 0.0]))
    assert m.rise.tolist() == [0.25, 0.0, 0.0]
    assert m.fall.tolist() == [0.0, 0.5, 0.0]
    assert m.rises.tolist() == [1.0, 0.0, 0.0]
    assert m.falls.tolist() == [0.0, 1.0, 0.0]


# --- the library of references that libra_cam keeps -------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The layers for which a library was built, in that order."""
    found: list[str] = []
    real = references.build_library

    def count(model, pictures, layer):
        found.append(layer)
        return real(model, pictures, layer)

    monkeypatch.setattr(references, "build_library", count)
    return found


def again(seed: int = 3) -> Classifier:
    """The same network as in another process: what was kept in memory is not known to it."""
    return network(seed)


def test_references_are_what_the_network_gives(model, folder):
    known = library(model, folder, "1")
    x = pixels(model, folder)
    assert known.names == tuple(f"{i:02}.png" for i in range(12))
    with torch.no_grad():
        torch.testing.assert_close(known.logits, model(x))
        torch.testing.assert_close(known.activations, at_layer(model, x, 1))
    read = library(again(), folder, "1")
    assert torch.equal(read.logits, known.logits)
    assert torch.equal(read.activations, known.activations)
    assert (read.names, read.broken, read.left_out) == (known.names, (), 0)
    kept = list(cache_folder().glob("*.safetensors"))
    assert len(kept) == 1
    assert kept[0].parent.parent.name == "cache"


def test_references_are_built_once(model, folder, built):
    first = library(model, folder, "1")
    assert library(model, folder, "1") is first
    library(again(), folder, "1")
    assert built == ["1"]


@pytest.mark.parametrize(
    "change", ["weights", "buffer", "layer", "new picture", "other picture", "preprocessing", "code", "damage"]
)
def test_references_are_built_again_when_anything_changes(model, folder, built, change):
    library(model, folder, "1")
    other, layer = again(), "1"
    if change == "weights":
        with torch.no_grad():
            other.net[2].bias[0] += 1e-3
    elif change == "buffer":
        other.net.register_buffer("scale", torch.ones(1))
    elif change == "layer":
        layer = "3"
    elif change == "new picture":
        shutil.copy(Path(folder, "00.png"), Path(folder, "zz.png"))
    elif change == "other picture":
        path = Path(folder, "05.png")
        was = path.stat()
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 10**9))
    elif change == "preprocessing":
        other = Classifier(other.net, Preprocess((8, 12), MEAN, (0.3, 0.2, 0.5)), other.labels)
    elif change == "code":
        other.net[1] = nn.ReLU()  # the same weights
    else:
        (file,) = cache_folder().glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:100])
    found = library(other, folder, layer)
    assert built == ["1", layer]
    assert len(list(cache_folder().iterdir())) == (1 if change in ("code", "damage") else 2)  # both are right of theirs
    with torch.no_grad():
        torch.testing.assert_close(found.logits, other(pixels(other, folder)))


def test_references_that_cannot_be_read_are_named_and_left_out(model, pictures, folder, built):
    wanted = explain(model, pictures, f"libra-cam(references={folder}, most=0.9, layer=1)", ClassScore(0)).maps
    Path(folder, "06b.png").write_bytes(Path(folder, "06.png").read_bytes()[:60])
    Path(folder, "07b.png").touch()
    for other in model, again():  # built, and read
        said = r"^left out of the references: (06b.png \(truncated\), )?07b.png \(empty \(0 bytes\)\)"
        with pytest.warns(Notice, match=said) as told:
            e = explain(other, pictures, f"libra-cam(references={folder}, most=0.9, layer=1)", ClassScore(0))
        torch.testing.assert_close(e.maps, wanted)
        assert [str(w.message).count("06b.png (truncated") for w in told] == [1]
    assert built == ["1", "1"]


def test_the_references_that_are_named_are_those_that_are_there_now(model, folder):
    library(model, folder, "1")
    Path(folder, "00b.png").touch()
    with pytest.warns(Notice, match=r"references: 00b.png \(empty \(0 bytes\)\)$"):
        library(again(), folder, "1")
    Path(folder, "00b.png").unlink()
    assert library(again(), folder, "1").broken == ()  # and no warning, which would be an error here
    for i in range(11):
        Path(folder, f"x{i:02}.png").touch()
    with pytest.warns(Notice, match=r"x07.png \(empty \(0 bytes\)\) and 3 more$"):
        library(model, folder, "1")


def test_no_more_references_are_kept_than_fit(model, folder, monkeypatch):
    monkeypatch.setattr(references, "BYTES", 5 * 6 * 4 * 6 * 4 + 3)  # five times 6 channels, 4 × 6 places, 4 bytes
    known = library(model, folder, "1")
    assert known.names == ("00.png", "02.png", "04.png", "07.png", "09.png")  # an even spread
    assert known.left_out == 7
    assert library(again(), folder, "1").left_out == 7


def test_no_more_libraries_are_kept_than_there_is_room_for(folder, monkeypatch):
    library(again(1), folder, "1")
    (first,) = cache_folder().iterdir()
    monkeypatch.setattr(references, "DISK", int(first.stat().st_size * 2.5))
    library(again(2), folder, "1")
    second = next(f for f in cache_folder().iterdir() if f != first)
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    library(again(1), folder, "1")  # read, so that the second is the one not used for longest
    library(again(3), folder, "1")
    assert first.exists()
    assert not second.exists()
    assert len(list(cache_folder().iterdir())) == 2


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(model, pictures, folder, tmp_path, monkeypatch, built):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(Notice, match="will be run again next time"):
        e = explain(model, pictures, f"libra-cam(references={folder}, most=0.9, layer=1)", ClassScore(0), batch=1)
    assert built == ["1"]  # for all batches of one process
    assert e.maps.isfinite().all()


def test_the_cache_folder_is_the_users(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.abspath("somewhere"))
    assert cache_folder() == Path("somewhere").absolute() / "clearsight"
    for odd in "", "relative":
        monkeypatch.setenv("XDG_CACHE_HOME", odd)
        assert cache_folder() == Path.home() / ".cache" / "clearsight"


def test_of_references_with_splits_train_is_taken(model, folder, tmp_path):
    for split in "test", "train":
        write(tmp_path / "split" / split / "thing", 2, seed=len(split))
    assert library(model, "split", "1").names == ("train/thing/00.png", "train/thing/01.png")
    assert len(open_data("split").pictures) == 2
