"""Certified radii by randomised smoothing: closed forms, quadrature, and attacks inside the radius."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from clearsight.auditing.audit import parse_checks
from clearsight.auditing.case import Case
from clearsight.core.check_kinds import checks_of
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.statistics import clopper_pearson_lower, normal_quantile, wilson
from clearsight.core.targets import Misclassify
from clearsight.data.datasets import Pictures
from clearsight.errors import Refused
from clearsight.runner.certify import certify, largest_radius
from clearsight.runner.run import attack
from clearsight.testing import linear, rectified
from twohalves import HEIGHT, WIDTH, Halves, found, model, rows, written

SIGMA = 0.25


# The bound ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_clopper_pearson_by_closed_forms_and_by_scipy(alpha: float) -> None:
    for n in (1, 10, 1000, 100_000):
        assert clopper_pearson_lower(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-12)
        assert clopper_pearson_lower(1, n, alpha) == pytest.approx(1 - (1 - alpha) ** (1 / n), rel=1e-9)
        assert clopper_pearson_lower(0, n, alpha) == 0
    for k, n in ((7, 10), (550, 1000), (99_000, 100_000)):
        bound = clopper_pearson_lower(k, n, alpha)
        assert scipy.stats.binom.sf(k - 1, n, bound) == pytest.approx(alpha, rel=1e-6)
        peer = scipy.stats.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
        assert bound == pytest.approx(peer, abs=1e-9)


def test_the_largest_radius_that_draws_can_prove() -> None:
    """Of the paper's 100000 draws, 3.8 sigma (its section 4)."""
    assert largest_radius(0.5, 1000, 0.001) == pytest.approx(0.5 * scipy.stats.norm.ppf(0.001 ** (1 / 1000)))
    assert normal_quantile(0.9) == pytest.approx(scipy.stats.norm.ppf(0.9))


def test_radii_that_the_authors_published_are_those_of_this_bound() -> None:
    """From github.com/locuslab/smoothing, data/certify/cifar10/resnet110/noise_0.25: the largest radii of 100000 draws.

    They fit alpha = 0.01, and not the 0.001 of the paper, whose largest radius would be 0.953.
    """
    published = [0.978, 0.955, 0.941, 0.929, 0.92, 0.906, 0.894, 0.889, 0.88, 0.873, 0.866]
    others = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 9, 8: 11, 9: 13, 10: 15}  # draws of another class
    for k, radius in enumerate(published):
        p = clopper_pearson_lower(100_000 - others[k], 100_000, 0.01)
        assert 0.25 * normal_quantile(p) == pytest.approx(radius, abs=5e-4)


# Networks whose certificate is known ----------------------------------------------------------------------------------


def test_a_linear_networks_certified_radius_is_its_distance_to_the_plane() -> None:
    """Never above it, and close; also for pictures at the border, where clipped noise would prove too much."""
    weight, bias = torch.tensor([1.5, -2.0]), 0.3
    net = linear([weight.tolist(), [0.0, 0.0]], [bias, 0.0])
    x = torch.tensor([[0.2, 0.4], [0.0, 0.0], [0.0, 0.2], [1.0, 1.0], [0.0, 0.3], [0.6, 0.4], [1.0, 0.85], [0.1, 0.4]])
    signed = (x @ weight + bias) / weight.norm()
    n = 20_000
    c = certify(net, x.view(-1, 1, 1, 2), sigma=SIGMA, n=n)
    assert not c.abstained.any()
    assert torch.equal(c.classes, (signed < 0).long())
    distance = signed.abs().double()
    assert (c.radii <= distance).all()
    assert (c.radii >= distance - 0.02).all()
    p = torch.special.ndtr(distance / SIGMA)
    assert ((c.counts / n - p).abs() <= 4 * (p * (1 - p) / n).sqrt()).all(), "the noise has another size"
    bound = torch.tensor([alpha_bound(int(k), n) for k in c.counts], dtype=torch.float64)
    torch.testing.assert_close(c.radii, SIGMA * torch.special.ndtri(bound))


def alpha_bound(k: int, n: int) -> float:
    return float(scipy.stats.beta.ppf(0.001, k, n - k + 1))


def test_a_constant_network_is_certified_as_far_as_the_draws_reach() -> None:
    net = linear([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [0.0, 2.0, 1.0])
    c = certify(net, torch.rand(3, 1, 1, 2), sigma=SIGMA, n=200)
    assert c.classes.tolist() == [1, 1, 1]
    assert c.counts.tolist() == [200] * 3
    assert c.radii.tolist() == pytest.approx([largest_radius(SIGMA, 200, 0.001)] * 3)


def test_on_the_plane_it_abstains() -> None:
    c = certify(linear([[1.0, 0.0], [0.0, 0.0]], [-0.5, 0.0]), torch.full((4, 1, 1, 2), 0.5), sigma=SIGMA, n=500)
    assert c.abstained.all()
    assert not c.radii.any()
    assert (c.lower <= 0.5).all()


def test_the_class_is_chosen_by_draws_of_its_own() -> None:
    """A single draw chooses; the others count that class, also where they choose another one."""
    net = linear([[1.0, 0.0], [0.0, 0.0]], [-0.5, 0.0])
    x = torch.cat([torch.full((40, 1, 1, 1), 0.55), torch.linspace(0, 1, 40).view(-1, 1, 1, 1)], 3)
    c = certify(net, x, sigma=SIGMA, n0=1, n=500)
    rare = c.classes == 1
    assert 0 < int(rare.sum()) < 40
    assert (c.counts[rare] < 250).all()
    assert c.abstained[rare].all()


def test_noise_belongs_to_the_picture() -> None:
    net = linear([[1.0, 2.0], [0.0, 0.0]], [-1.4, 0.0])
    x = torch.rand(5, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    whole = certify(net, x, sigma=SIGMA, n=300)
    for batch in (1, 7, 1000):
        assert torch.equal(certify(net, x, sigma=SIGMA, n=300, batch=batch).counts, whole.counts)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(certify(net, x[order], sigma=SIGMA, n=300).counts, whole.counts[order])
    assert not torch.equal(certify(net, x, sigma=SIGMA, n=300, seed=1).counts, whole.counts)


# Certified is never above empirical -----------------------------------------------------------------------------------


def worst(weight: Tensor, c_signed: Tensor) -> Tensor:
    """The direction of length 1 that goes straight to the plane, (B, 1, 1, 2)."""
    return (-c_signed.sign()[:, None] * weight / weight.norm()).view(-1, 1, 1, 2)


def test_no_attack_inside_the_radius_changes_a_smoothed_linear_network() -> None:
    """Smoothing leaves a linear network what it is, so it is attacked itself: by PGD, and along the worst direction."""
    g = torch.Generator().manual_seed(3)
    beyond = 0
    for _ in range(5):
        weight, bias = torch.randn(2, generator=g), 0.3 * float(torch.randn(1, generator=g))
        net = linear([weight.tolist(), [0.0, 0.0]], [bias, 0.0])
        x = torch.rand(6, 1, 1, 2, generator=g)
        signed = (x.flatten(1) @ weight + bias) / weight.norm()
        c = certify(net, x, sigma=SIGMA, n=1000)
        for i in (~c.abstained).nonzero()[:, 0].tolist():
            y, radius = c.classes[i : i + 1], float(c.radii[i])
            found_by_pgd = attack(net, x[i : i + 1], Misclassify(y), "pgd(norm=l2, steps=10)", eps=radius)
            assert not found_by_pgd.fooled.any()
            way = worst(weight, signed[i : i + 1])
            assert torch.equal(net(x[i : i + 1] + 0.999 * radius * way).argmax(1), y)
            distance = float(signed[i].abs())
            beyond += int((net(x[i : i + 1] + 1.01 * distance * way).argmax(1) != y).item())
            assert radius <= distance
    assert beyond >= 15, "the direction is not the worst one"


class _Smoothed(nn.Module):
    """The mean probabilities over fixed draws of noise, which gradients can follow."""

    def __init__(self, net: Classifier, draws: Tensor) -> None:
        super().__init__()
        self.net, self.model = net.net, net
        self.register_buffer("draws", draws)

    def forward(self, x: Tensor) -> Tensor:
        noisy = (x[:, None] + self.draws).flatten(0, 1)
        return self.model.from_normalised(noisy).softmax(1).view(len(x), len(self.draws), -1).mean(1).log()


def test_no_attack_inside_the_radius_changes_a_smoothed_bent_network() -> None:
    """Two pixels: the smoothed network's own answer is known from quadrature, also around the picture."""
    net = rectified([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]], [[1.0, -1.0, 0.5], [0.0, 0.4, 0.0]], [-1.0, -1.0, 4.0])
    quantiles = torch.special.ndtri((torch.arange(200, dtype=torch.float64) + 0.5) / 200).float()
    grid = SIGMA * torch.cartesian_prod(quantiles, quantiles)

    def smoothed_class(z: Tensor) -> int:
        with torch.no_grad():
            return int(net((z.view(1, 2) + grid).view(-1, 1, 1, 2)).argmax(1).bincount(minlength=2).argmax())

    x = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.3, 0.7], [0.55, 0.5]]).view(-1, 1, 1, 2)
    c = certify(net, x, sigma=SIGMA, n=2000)
    certified = (~c.abstained).nonzero()[:, 0].tolist()
    assert len(certified) >= 3
    smoothed = Classifier(
        _Smoothed(net, SIGMA * torch.randn(64, 1, 1, 2, generator=torch.Generator().manual_seed(0))),
        Preprocess((1, 2), (0.0,), (1.0,)),
        net.labels,
    )
    changed = 0
    for i in certified:
        y, radius = int(c.classes[i]), float(c.radii[i])
        assert smoothed_class(x[i]) == y
        by_pgd = attack(smoothed, x[i : i + 1], torch.tensor([y]), "pgd(norm=l2, early_stop=false)", eps=radius).x[0]
        ring = [torch.tensor([math.cos(a), math.sin(a)]).view(1, 1, 2) for a in np.linspace(0, 2 * np.pi, 16)]
        assert all(smoothed_class(z) == y for z in [by_pgd, *(x[i] + 0.99 * radius * way for way in ring)])
        changed += any(smoothed_class(x[i] + 6 * radius * way) != y for way in ring)
    assert changed >= 2, "no change of the picture alters the answer at all"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sigma": 0.0}, "sigma above 0"),
        ({"sigma": 0.1, "n0": 0}, "at least one draw"),
        ({"sigma": 0.1, "alpha": 1.0}, "alpha between 0 and 1"),
        ({"sigma": 0.1, "n": 9}, r"n=9.*certify nothing.*give more draws"),
    ],
)
def test_options_that_prove_nothing_are_refused(options: dict[str, float], told: str) -> None:
    with pytest.raises(Refused, match=told):
        certify(linear([[1.0], [0.0]]), torch.zeros(1, 1, 1, 1), **options)


# The check ------------------------------------------------------------------------------------------------------------

LEVELS = (133, 122, 134, 127, 170, 20)  # of 255; the plane lies at 127.5, and a step of one is 16 / 255 in L2
WORDS = ("bright", "dark", "dark", "dark", "bright", "dark")
CHECK = "certified-robustness(n=500)"


def flat_case(folder: Path, **more: float) -> Case:
    pictures = [np.full((HEIGHT, WIDTH), level) for level in LEVELS]
    return Case(model(Halves()), written(folder, pictures, [(w,) for w in WORDS]), **more)


def test_check_of_certified_robustness_by_hand(tmp_path: Path) -> None:
    """Four are right and far enough; one is right for another label, one lies at the plane."""
    f = found(flat_case(tmp_path), CHECK)
    assert (f.value, f.n) == (4 / 6, 6)
    assert f.interval == pytest.approx(wilson(4, 6))
    assert "the smoothed network is certified right on 4 of 6 pictures, 66.7 %" in f.headline
    assert "and abstains on 16.7 %" in f.headline
    by_picture = {r["picture"]: r for r in rows(f, "By picture")}
    assert [by_picture[f"0{i}.png"]["result"] for i in range(6)] == [
        "certified right", "certified right", "certified wrong", "abstained", "certified right", "certified right"
    ]  # fmt: skip
    radii = {name: r["radius (L2)"] for name, r in by_picture.items()}
    for i, level in enumerate(LEVELS):
        distance = abs(level - 127.5) / 255 * 16
        assert radii[f"0{i}.png"] is None if i == 3 else radii[f"0{i}.png"] <= distance
    most = largest_radius(SIGMA, 500, 0.001)
    assert radii["04.png"] == radii["05.png"] == pytest.approx(most)
    curve = rows(f, "Certified right answers by radius")
    right = [radii[f"0{i}.png"] for i in (0, 1, 4, 5)]
    assert [r["radius (L2)"] for r in curve] == pytest.approx([SIGMA * k / 4 for k in range(9)])
    assert [r["certified right"] for r in curve] == [sum(v >= SIGMA * k / 4 for v in right) for k in range(9)]
    assert curve[0]["certified right"] == 4
    assert curve[-1]["certified right"] == 2
    notes = " ".join(f.notes)
    assert "not for the network itself" in notes
    assert "is not clipped" in notes
    assert "these count as not certified" in notes
    assert "Without noise the network itself is right on 5 of 6 pictures." in notes
    assert "It took 3600 passes forward, 600 a picture." in notes
    assert f"No radius can be above {most:.3g}" in notes
    verdicts = [found(flat_case(tmp_path), f"certified-robustness(n=500, floor={v})").verdict for v in (0.2, 0.5, 0.95)]
    assert verdicts == ["pass", "warn", "fail"]


def test_check_of_certified_robustness_shows_the_ends_and_how_to_see_them_again(tmp_path: Path) -> None:
    case = flat_case(tmp_path)
    f = found(case, CHECK)
    small, large = f.evidence
    assert small.picture in ("00.png", "01.png", "02.png")
    assert large.picture in ("04.png", "05.png")
    assert "the smallest radius" in small.figure.caption
    assert "not for" not in small.figure.caption
    again = re.search(r"audit small (\S+) --only '(.*?)'", small.command)
    assert again is not None
    one = next(p for p in case.data.pictures if str(p.path) == again[1])
    alone = found(Case(case.model, Pictures(tmp_path, (one,))), again[2])
    assert rows(alone, "By picture")[0]["radius (L2)"] == small.facts["radius (L2)"]


def test_certified_robustness_stops_with_the_budget_and_comes_only_when_named(tmp_path: Path) -> None:
    f = found(flat_case(tmp_path, budget=1e-3), CHECK)
    assert f.n == 1
    assert any("budget was used up after 1 of 6" in note for note in f.notes)
    known = checks_of("classifier")
    by_name = {name for name, m in known.items() if "by-name" in m.claims}
    assert "certified-robustness" in by_name
    assert {c.method.name for c in parse_checks(None)} == known.keys() - by_name
    assert str(parse_checks(CHECK)[0]) == CHECK


@pytest.mark.parametrize(
    ("options", "told"), [("sigma=0", "sigma above 0"), ("n=5", "give more draws"), ("floor=2", "a share from 0 to 1")]
)
def test_certified_robustness_refuses_before_it_reads(options: str, told: str, tmp_path: Path) -> None:
    case = flat_case(tmp_path)
    case.data.pictures[0].path.unlink()
    with pytest.raises(Refused, match=told):
        found(case, f"certified-robustness({options})")
