"""The numbers of extremal-perturbation: slow replicas written from the paper, and objects that it must find."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.explainers import extremal_perturbation as extremal
from clearsight.explainers.common.blur_levels import blur_between
from clearsight.explainers.common.smooth_maximum import rings_of
from clearsight.explainers.extremal_perturbation import (
    area_template,
    disc_masks,
    nearness,
    smooth_max,
    template_at_rank,
)
from clearsight.perturbation.removal import blurred
from clearsight.runner.run import explain


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(net: nn.Module, size: tuple[int, ...], classes: int, channels: int = 3) -> Classifier:
    return Classifier(
        net.eval(), Preprocess(size, (0.5,) * channels, (0.25,) * channels), tuple(map(str, range(classes)))
    )


@pytest.fixture
def bent() -> Classifier:
    """A smooth network of 16 × 24 pictures in which the pixels work together."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * 8 * 12, 3),
        )
    for p in net[5].parameters():
        p.data *= 4
    return classifier(net, (16, 24), 3)


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(3, 3, 16, 24, generator=seeded(1))


class Texture(nn.Module):
    """How much fine texture stands in one part of the picture (class 0) or in the rest (class 1), with a saturation."""

    def __init__(self, where: Tensor) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        grey = x.mean(1)
        rough = nn.functional.pad(grey.diff(dim=-1).abs(), (0, 1))
        inside, outside = ((rough * w).sum((1, 2)) / w.sum() for w in (self.where, ~self.where))
        return torch.stack([inside, outside], 1).tanh()


# --- the pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "sides"), [([6, 5], (24, 20)), ([9], (36,)), ([6, 8, 4], (12, 16, 20))])
def test_extremal_perturbation_smooth_max_replica(grid, sides):
    """Section 3.2 of the paper: each place of the mask looks at all places, also at those beyond the border."""
    near, beyond = nearness(grid, torch.Size(sides))
    places = torch.rand(2, *[n + 2 * b for n, b in zip(grid, beyond, strict=True)], generator=seeded(0))
    found = smooth_max(rings_of(near, beyond), beyond, places)
    assert found.shape == (2, *grid)
    assert max(beyond) > 0
    steps = [side / n for side, n in zip(sides, grid, strict=True)]
    spread = 21 / 224 * max(sides)
    for row, p in enumerate(places):
        for u in itertools.product(*map(range, grid)):
            top = bottom = 0.0
            for v in itertools.product(*[range(-b, b + 1) for b in beyond]):
                d = math.dist((0,) * len(u), [a * s for a, s in zip(v, steps, strict=True)]) / spread
                felt = math.exp(-2 * max(0, d - 0.5) ** 2) * float(p[tuple(np.add(np.add(u, v), beyond))])
                top += felt * math.exp(20 * felt)
                bottom += math.exp(20 * felt)
            assert float(found[(row, *u)]) == pytest.approx(top / bottom, rel=1e-4)
    for b, step in zip(beyond, steps, strict=True):  # as far as two spreads
        assert b * step <= 2 * spread < (b + 1) * step


def test_extremal_perturbation_smooth_max_has_the_slope_of_its_formula():
    """Beside the softmax over a copy of what surrounds each place; places of 0 and 1 too, as the steps clamp them."""
    near, beyond = nearness([6, 5], torch.Size((24, 20)))
    values = torch.rand(2, *[n + 2 * b for n, b in zip((6, 5), beyond, strict=True)], generator=seeded(0))
    values = ((values - 0.3) * 2).clamp(0, 1)
    weights = torch.randn(2, 6, 5, generator=seeded(1))
    p, q = values.clone().requires_grad_(), values.double().requires_grad_()
    reach = q.unfold(1, 2 * beyond[0] + 1, 1).unfold(2, 2 * beyond[1] + 1, 1).flatten(3) * near
    (((reach * (20 * reach).softmax(-1)).sum(-1)) * weights).sum().backward()
    (smooth_max(rings_of(near, beyond), beyond, p) * weights).sum().backward()
    torch.testing.assert_close(p.grad, q.grad.float(), rtol=1e-5, atol=1e-5)


def test_extremal_perturbation_favours_no_place_for_its_distance_from_the_border():
    near, beyond = nearness([32, 32], torch.Size((224, 224)))
    assert beyond == [6, 6]
    for value in 1.0, 0.5:
        mask = smooth_max(rings_of(near, beyond), beyond, torch.full((1, 44, 44), value))
        assert float(mask.max() - mask.min()) < 1e-6
        assert 0.95 * value < float(mask.max()) <= value
    alone = torch.zeros(1, 44, 44)
    alone[0, 22, 22] = 1  # a disc, of a value near 1 to half a spread, and of nearly none from two spreads on
    mask = smooth_max(rings_of(near, beyond), beyond, alone)[0]
    assert mask[16, 15:18].min() > 0.99
    assert mask[16, 19] == pytest.approx(math.exp(-0.5 * (1 / 1) ** 2 * 4 * 0.25), abs=0.02)
    assert mask[16, 23] == 0


def test_extremal_perturbation_ranks():
    assert area_template(0.25, 8).tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert area_template(0.3, 5).tolist() == pytest.approx([0, 0, 0, 0.5, 1])
    for area, n in (0.1, 7), (0.1, 1024), (0.97, 3):
        assert float(area_template(area, n).sum()) == pytest.approx(area * n)
    mask = torch.tensor([[0.3, 0.9, 0.1, 0.30001, 0.2], [0.5] * 5])
    found = template_at_rank(mask, 0.3)  # 0, 0, 0, 1/2, 1: the two that are as good as equal share 0 and 1/2
    torch.testing.assert_close(found, torch.tensor([[0.25, 1.0, 0.0, 0.25, 0.0], [0.3] * 5]))


def test_extremal_perturbation_blurs_between_the_levels():
    levels = torch.stack([torch.full((1, 2, 5), float(v)) for v in (0, 10, 40)], 1)
    blur = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]]).requires_grad_()
    seen = blur_between(levels, blur)
    torch.testing.assert_close(seen.detach(), torch.tensor([[0.0, 5.0, 10.0, 25.0, 40.0]]).expand(1, 2, 5))
    seen.sum().backward()  # of two channels; from level to level of half a way each
    torch.testing.assert_close(blur.grad, torch.tensor([[40.0, 40.0, 120.0, 120.0, 120.0]]))


# --- the whole --------------------------------------------------------------------------------------------------------


def middle(size: tuple[int, int], rows: slice, columns: slice) -> Tensor:
    where = torch.zeros(size, dtype=torch.bool)
    where[rows, columns] = True
    return where


@pytest.mark.parametrize(("rows", "columns"), [(slice(6, 18), slice(24, 38)), (slice(18, 32), slice(0, 12))])
@pytest.mark.slow
def test_extremal_perturbation_finds_a_planted_object(rows, columns):
    """A network that reads one part of a picture of noise: the mask of that area lies on the part."""
    where = middle((32, 40), rows, columns)
    model = classifier(Texture(where), (32, 40), 2)
    x = torch.rand(2, 3, 32, 40, generator=seeded(5))
    share = float(where.float().mean())
    found = explain(model, x, f"extremal-perturbation(area={share}, iterations=60)", ClassScore(0))
    assert found.maps.min() >= 0
    assert found.maps.max() <= 1
    for m in found.maps > 0.5:
        assert float((m & where).sum() / (m | where).sum()) > 0.6
    assert (found.diagnostics["kept"] > 0.7).all()
    other = explain(model, x, f"extremal-perturbation(area={share}, iterations=60)", ClassScore(1)).maps
    assert (other[:, where].mean(1) < 0.2 * found.maps[:, where].mean(1)).all()


def test_extremal_perturbation_never_keeps_less_than_the_best_disc(bent, pictures):
    """One step from the start, where the mask is far from its area and may keep anything."""
    target = ClassScore([2, 0, 1])
    discs = disc_masks(0.1, [16, 24], torch.Size((16, 24)))
    assert discs.shape == (8, 8, 16, 24)
    assert (discs.sum((2, 3)) == 38).all()
    levels = torch.stack([pictures] + [blurred(pictures, 20 / 224 * 24 * i / 7) for i in range(1, 8)], 1)
    with torch.no_grad():
        best = torch.stack(
            [target(bent(blur_between(levels, (1 - d).expand(3, 16, 24)))) for d in discs.view(64, 16, 24)]
        ).amax(0)
        for iterations in 1, 80:
            maps = explain(bent, pictures, f"extremal-perturbation(iterations={iterations})", target).maps
            assert (target(bent(blur_between(levels, 1 - maps))) >= best - 1e-5).all()


@pytest.mark.parametrize("area", [0.1, 0.25, 0.5])
def test_extremal_perturbation_keeps_to_its_area_and_keeps_more_than_others_of_that_area(bent, pictures, area):
    target = ClassScore([2, 0, 1])
    found = explain(bent, pictures, f"extremal-perturbation(area={area}, iterations=80)", target)
    torch.testing.assert_close(found.diagnostics["area"], found.maps.mean((1, 2)))
    torch.testing.assert_close(found.diagnostics["area"], torch.full((3,), area), rtol=0.2, atol=0.02)

    levels = torch.stack([pictures] + [blurred(pictures, 20 / 224 * 24 * i / 7) for i in range(1, 8)], 1)

    def kept(masks: Tensor) -> Tensor:
        with torch.no_grad():
            return target(bent(blur_between(levels, 1 - masks)))

    ours = kept(found.maps)
    with torch.no_grad():
        blur, whole = target(bent(levels[:, -1])), target(bent(pictures))
    torch.testing.assert_close(found.diagnostics["kept"], (ours - blur) / (whole - blur))
    distance = torch.stack(torch.meshgrid(torch.arange(16) - 7.5, torch.arange(24) - 11.5, indexing="ij")).norm(dim=0)
    others = [distance] + [blurred(torch.rand(1, 1, 16, 24, generator=seeded(k)), 1.5)[0, 0] for k in range(20)]
    beaten = []
    for other in others:  # the area of ours, to the pixel
        least = other.flatten().sort().values
        masks = torch.stack([(other < least[round(float(a) * 384)]).float() for a in found.diagnostics["area"]])
        beaten.append(ours > kept(masks))
    assert beaten[0].all()  # the middle
    assert (torch.stack(beaten).float().mean(0) > 0.9).all()  # of 20 random ones, chance may have one


@pytest.mark.parametrize("scale", [1, 30])
def test_extremal_perturbation_replica(scale):
    """Four steps written out, with Adam (Kingma & Ba 2015, algorithm 1), one picture and one place at a time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 18, 20), nn.Tanh(), nn.Linear(20, 3))
    net[3].weight.data *= scale  # the target in other units
    model = classifier(net, (12, 18), 3)
    pictures = torch.rand(2, 3, 12, 18, generator=seeded(0))
    call = "extremal-perturbation(area=0.3, iterations=4, cells=6)"
    found = explain(model, pictures, call, ClassScore([2, 0])).maps
    near, beyond = nearness([6, 6], torch.Size((12, 18)))
    assert beyond == [int(2 * 21 / 224 * 18 / step) for step in (2, 3)]
    for x, c, ours in zip(pictures, [2, 0], found, strict=True):
        levels = [x] + [blurred(x[None], 20 / 224 * 18 * i / 7)[0] for i in range(1, 8)]

        def score(mask: Tensor, levels=levels, c=c) -> Tensor:
            large = nn.functional.interpolate(mask[None, None], (12, 18), mode="bilinear")[0, 0]
            at = (1 - large) * 7
            low = at.detach().floor().clamp(max=6)
            seen = torch.zeros(3, 12, 18)
            for i in range(7):
                part = levels[i] + (at - i) * (levels[i + 1] - levels[i])
                seen = seen + part * (low == i)
            return model(seen[None])[0, c]

        tried = []
        with torch.no_grad():
            for r, q in itertools.product(range(6), repeat=2):
                cells = [((a - r) ** 2 * 4 + (b - q) ** 2 * 9, a, b) for a in range(6) for b in range(6)]
                disc = torch.zeros(6, 6)
                for _, a, b in sorted(cells)[:11]:  # 0.3 of 36
                    disc[a, b] = 1
                tried.append(float(score(disc)))
            ends = [float(score(torch.full((6, 6), v))) for v in (1.0, 0.0)]
        unit = max(*tried, *ends) - min(*tried, *ends)
        start = (torch.tensor(tried).view(6, 6) - min(tried)) / (max(tried) - min(tried))
        p = nn.functional.pad(start[None], [beyond[1]] * 2 + [beyond[0]] * 2, mode="replicate")[0]
        first, second = torch.zeros_like(p), torch.zeros_like(p)
        for step in range(1, 5):
            z = p.clone().requires_grad_()
            mask = smooth_max(rings_of(near, beyond), beyond, z[None])[0]
            rank = mask.detach().flatten().argsort().argsort()
            target = torch.tensor([min(max(k + 1 - 0.7 * 36, 0.0), 1.0) for k in rank.tolist()])
            level = (mask.detach().flatten() / 1e-4).round()
            target = torch.stack([target[level == v].mean() for v in level])  # ties share their rank
            weight = 300 ** ((step - 1) / 3)
            (weight * ((mask.flatten() - target) ** 2).mean() - score(mask) / unit).backward()
            first = 0.9 * first + 0.1 * z.grad
            second = 0.999 * second + 0.001 * z.grad**2
            move = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            p = (p - 0.02 * move).clamp(0, 1)
        mask = smooth_max(rings_of(near, beyond), beyond, p[None])[0]
        with torch.no_grad():
            assert float(score(mask)) > max(tried)  # it is the mask that is compared, not the best disc
        wanted = nn.functional.interpolate(mask[None, None], (12, 18), mode="bilinear")[0, 0]
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3)
        assert (wanted - start.mean()).abs().max() > 0.2


def test_extremal_perturbation_of_sequences_and_clips():
    """A net that reads the last third finds it, whatever the number of axes."""
    for size in (48,), (6, 12, 10):
        where = torch.zeros(size, dtype=torch.bool)
        where[..., -(size[-1] // 3) :] = True
        weight = where.float() / where.sum()
        layer = nn.Linear(math.prod(size), 2)
        layer.weight.data = torch.stack([weight.flatten(), -weight.flatten()])
        model = classifier(nn.Sequential(Rough(), nn.Flatten(), layer), size, 2, 1)
        x = torch.rand(1, 1, *size, generator=seeded(0))
        found = explain(model, x, "extremal-perturbation(area=0.3, iterations=40)", ClassScore(0)).maps[0]
        assert float(found[where].mean()) > 0.7
        assert float(found[~where].mean()) < 0.3


class Rough(nn.Module):
    """How far each pixel is from 1/2."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).abs()


def test_extremal_perturbation_of_more_pictures_than_a_pass_holds(bent):
    x, classes = torch.rand(18, 3, 16, 24, generator=seeded(4)), torch.arange(18) % 3
    method = catalogue("explainers")["extremal-perturbation"]
    whole = method(bent, x, ClassScore(classes), iterations=3)
    for i in (0, 15, 16, 17):
        alone = method(bent, x[i : i + 1], ClassScore(classes[i]), iterations=3)
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-3, atol=1e-3)


class Copies(TorchDispatchMode):
    """How often the levels of blur of pictures of 16 x 24 were copied, and how often a part of them was looked up."""

    whole = parts = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **kwargs or {})
        self.whole += not op.is_view and getattr(out, "shape", ())[1:] == (8, 3, 16, 24)
        self.parts += op is torch.ops.aten.index_select.default
        return out


def test_extremal_perturbation_looks_up_two_levels_in_a_step_and_finds_its_rings_once(bent, pictures, monkeypatch):
    counted, rings = [], []
    monkeypatch.setattr(extremal, "rings_of", lambda *given: rings.append(given) or rings_of(*given))
    for iterations in 2, 5:
        with Copies() as copies:
            extremal.extremal_perturbation(bent, pictures, ClassScore(0), iterations=iterations)
        counted.append((copies.whole, copies.parts))
    assert counted[0] == (1, 2 * (2 + 1))  # the levels themselves; two of each step, and of the map at the end
    assert counted[1] == (1, 2 * (5 + 1))
    assert len(rings) == 2


def test_extremal_perturbation_refuses_nonsense(bent, pictures):
    for options in "area=0", "area=1", "area=-0.5", "iterations=0", "cells=0":
        with pytest.raises(Refused, match=r"extremal-perturbation\(area="):
            explain(bent, pictures, f"extremal-perturbation({options})")
