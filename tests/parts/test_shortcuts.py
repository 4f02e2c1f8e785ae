"""Shortcuts: what is there is found and shown, and what is not there is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.interventions import Example, Intervention, Kind, colour, seeded_partners
from clearsight.auditing.spray import area, clusters, cores, elsewhere, hotspot, overlap, place_words, pooled
from clearsight.checks.shortcuts import judge_group, nearest_training_pictures
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.annotations import Region
from clearsight.data.datasets import Picture, Pictures, demo_pictures
from clearsight.demos.decoy_digits import Mark, write_digits
from clearsight.perturbation.recolouring import recoloured
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report

DATA = Path(__file__).parents[3] / "shared" / "data"
SIDE = 32


def found(model: Classifier, pictures: Pictures, check: str = "shortcuts", method: str = "auto") -> Finding:
    (finding,) = run_checks(Case(model, pictures, method=method), parse_checks(check))
    return finding


def tried(finding: Finding) -> list[dict[str, object]]:
    return [dict(r) for t in finding.tables if t.caption.startswith("What was tried") for r in t.rows]


def written(root: Path, pixels: Tensor, labels: list[str], regions: list[Region] | None = None) -> Pictures:
    """Pictures (n, C, H, W) as files."""
    pictures = []
    for i, (x, label) in enumerate(zip(pixels, labels, strict=True)):
        a = (x * 255).round().byte().permute(1, 2, 0).numpy()
        path = root / f"{i:04}.png"
        root.mkdir(parents=True, exist_ok=True)
        Image.fromarray(a if a.shape[2] == 3 else a[..., 0]).save(path)
        pictures.append(Picture(path, path.name, (label,), (regions[i],) if regions else None))
    return Pictures(root, tuple(pictures))


# Where maps come together ---------------------------------------------------------------------------------------------


def test_maps_of_three_places_are_three_clusters() -> None:
    """As many clusters as there are places, each with the maps of one place, the largest first."""
    random = torch.Generator().manual_seed(0)
    maps = 0.02 * torch.rand(40, 16, 16, generator=random)
    place = [0] * 18 + [1] * 12 + [2] * 10
    for i, p in enumerate(place):
        top, left = ((1, 1), (1, 12), (11, 6))[p]
        maps[i, top : top + 3, left : left + 3] += 1
    order = torch.randperm(40, generator=random).tolist()
    got = clusters(pooled(maps[order]), seed=0)
    assert got == [place[i] for i in order]


def test_maps_that_are_all_alike_are_one_cluster() -> None:
    even = torch.ones(30, 8, 8) + 1e-3 * torch.rand(30, 8, 8, generator=torch.Generator().manual_seed(1))
    assert clusters(pooled(even)).count(0) >= 15
    assert clusters(pooled(even[:5])) == [0] * 5
    assert clusters(pooled(even[:1])) == [0]


def test_pooling_counts_only_what_speaks_for_the_answer() -> None:
    maps = torch.full((1, 32, 32), -1.0)
    maps[0, :2, :2] = 4.0
    shares = pooled(maps)
    assert shares.shape == (1, 16, 16)
    assert shares[0, 0, 0] == 1
    assert pooled(-maps.abs())[0].allclose(torch.full((16, 16), 1 / 256))


def test_a_hotspot_is_the_strongest_part_and_not_all_of_them() -> None:
    mean = torch.zeros(16, 16)
    mean[3:5, 0:2] = 0.15
    mean[12, 12] = 0.4
    box, mass = hotspot(mean, (32, 32), mass=0.9)
    assert box == (4, 0, 12, 6)
    assert mass == pytest.approx(0.6)


def test_elsewhere_is_as_large_inside_the_picture_and_hardly_where_it_was() -> None:
    for seed in range(20):
        box = elsewhere((0, 0, 6, 9), (32, 32), torch.Generator().manual_seed(seed))
        assert (box[2] - box[0], box[3] - box[1]) == (6, 9)
        assert min(box) >= 0
        assert max(box) <= 32
        assert overlap(box, (0, 0, 6, 9)) < 0.3


def test_a_place_has_a_name() -> None:
    assert place_words((0, 24, 4, 28), (28, 28)) == "top right"
    assert place_words((12, 0, 16, 4), (28, 28)) == "left"


def test_a_picture_in_the_colours_of_another_keeps_its_shape() -> None:
    """Two tones each: what was light and dark in one gets the light and the dark colour of the other."""
    x, donor = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4)
    x[0, :, 0] = torch.tensor([[0.1, 0.1, 0.6, 0.6]] * 3)
    donor[0, :, 0, ::2] = torch.tensor([0.9, 0.2, 0.4])[:, None]
    donor[0, :, 0, 1::2] = torch.tensor([0.0, 0.1, 0.1])[:, None]
    made = recoloured(x, donor)[0, :, 0]
    assert made[:, 0].allclose(torch.tensor([0.0, 0.1, 0.1]), atol=1e-5)
    assert made[:, 3].allclose(torch.tensor([0.9, 0.2, 0.4]), atol=1e-5)
    assert recoloured(x, x).allclose(x, atol=1e-6)
    assert bool(recoloured(torch.full_like(x, 0.3), donor).isfinite().all())


# Networks whose reasons are known -------------------------------------------------------------------------------------


class Corner(nn.Module):
    """Says class 1 where the corner is brighter than half, else class 0; the rest says next to nothing."""

    def __init__(self, rest: float = 0.0) -> None:
        super().__init__()
        weight = torch.full((SIDE, SIDE), rest / SIDE**2)
        weight[:4, :4] = 1.0
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        z = (self.weight * (x.mean(1) - 0.5)).sum((1, 2))
        return torch.stack([-z, z], 1)


def corners(root: Path, n: int = 40) -> Pictures:
    """Noise, with a corner that is bright or dark by the class."""
    x = torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    x[: n // 2, :, :6, :6], x[n // 2 :, :, :6, :6] = 0.1, 0.9
    return written(root, x, ["0"] * (n // 2) + ["1"] * (n // 2))


def grey(net: nn.Module, labels: tuple[str, ...] = ("0", "1")) -> Classifier:
    return Classifier(net, Preprocess((SIDE, SIDE), (0.0,), (1.0,)), labels, "known")


def always_the_corner(folder: Path) -> str:
    """The spelling of an explainer that marks the upper left corner, whatever it is asked."""
    file = folder / "mine.py"
    file.write_text(
        "import torch\n"
        "def corner(model, x, target):\n"
        '    """Always the corner: x (B, C, H, W) -> (B, H, W)."""\n'
        "    maps = torch.zeros(len(x), *x.shape[2:])\n"
        "    maps[:, :4, :4] = 1\n"
        "    return maps\n"
    )
    return f"{file}:corner"


def test_a_corner_that_decides_is_found_named_and_shown(tmp_path: Path) -> None:
    """The mark carries its answer along in every case, and the same size from elsewhere in none."""
    f = found(grey(Corner()), corners(tmp_path), method="gradient-x-input")
    assert f.verdict == "fail", f.headline
    assert "top left" in f.headline
    (row,) = [r for r in tried(f) if r["shortcut"] == "yes"]
    assert row["carried along"] == 1
    assert row["control of that"] <= 0.5  # of two answers, where the reasons for both are erased
    assert row["odds fall further without it"] == 1
    assert f.evidence[0].facts["shortcut"] == "yes"
    assert f.evidence[0].facts["with the place put on it"] == f.evidence[0].facts["said"]
    assert f.n == len([1 for p in corners(tmp_path).pictures if p.labels == ("1",)])


def test_the_same_corner_is_none_where_it_is_the_annotated_object(tmp_path: Path) -> None:
    pictures = corners(tmp_path)
    x = torch.stack([torch.from_numpy(np.asarray(Image.open(p.path)).copy()) for p in pictures.pictures])[:, None] / 255
    labels = [p.labels[0] for p in pictures.pictures]
    boxed = written(tmp_path / "b", x, labels, [Region(((0.0, 0.0, 8.0, 8.0),))] * len(labels))
    f = found(grey(Corner()), boxed, method="gradient-x-input")
    assert {r["shortcut"] for r in tried(f) if str(r["suspect"]).startswith("top left")} == {"on the object"}
    assert f.verdict == "pass"


class CornerAndMiddle(nn.Module):
    """A mark in the corner decides; a large part in the middle holds more of the map, and says less."""

    def __init__(self, corner: float) -> None:
        super().__init__()
        weight = torch.zeros(SIDE, SIDE)
        weight[10:22, 10:22], weight[:4, :4] = 1.0, corner
        usual = torch.zeros(SIDE, SIDE)
        usual[10:22, 10:22], usual[:4, :4] = 0.95, 0.3
        self.weight, self.usual = nn.Parameter(weight), nn.Parameter(usual, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        z = (self.weight * (x.mean(1) - self.usual)).sum((1, 2))
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize("corner", [1.5, 0.0])
def test_a_mark_beside_a_larger_place_is_found_if_it_brings_its_answer_along(tmp_path: Path, corner: float) -> None:
    """The maps come together in the middle; the mark is what is densest off that.  Without it there is none."""
    x = torch.rand(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.4
    for half, sign in ((slice(0, 20), -1), (slice(20, 40), 1)):
        x[half, :, 10:22, 10:22] = 0.95 + sign * 0.02
        x[half, :, :4, :4] = 0.3 + sign * 0.3
    f = found(grey(CornerAndMiddle(corner)), written(tmp_path, x, ["0"] * 20 + ["1"] * 20), method="gradient-x-input")
    named = {str(r["suspect"]).partition(",")[0] for r in tried(f) if r["shortcut"] == "yes"}
    assert named == ({"top left"} if corner else set())
    assert f.verdict == ("fail" if corner else "pass"), f.headline
    assert any("may be the object itself" in n for n in f.notes)
    told = {r["answer"]: r for t in f.tables if t.caption.startswith("Clusters") for r in t.rows}
    assert told["1"]["place"] == "centre"
    assert (told["0"]["right with it erased"], told["1"]["right with it erased"]) == (1.0, 0.0)


def test_the_cores_of_a_map_are_the_densest_boxes_on_a_place_and_off_it() -> None:
    mean = torch.full((8, 8), 0.001)
    mean[0:2, 0:2], mean[5:7, 4:6], mean[2, 0] = 0.1, 0.05, 0.04
    found = cores(mean, (16, 16), 16, (0, 0, 6, 6))
    assert [box for box, _ in found] == [(0, 0, 4, 4), (10, 8, 14, 12)]
    assert [mass for _, mass in found] == pytest.approx([0.4, 0.2])
    assert [box for box, _ in cores(mean, (16, 16), 16, (9, 9, 15, 15))] == [(0, 0, 4, 4)]
    assert all(area(box) <= 17 for box, _ in cores(torch.rand(5, 7), (16, 16), 17, (0, 0, 6, 6)))
    assert cores(mean, (16, 16), 3, (0, 0, 6, 6)) == []
    assert cores(torch.full((4, 4), 1 / 16), (16, 16), 32, (0, 0, 8, 8)) == []


def test_a_mark_without_effect_is_cleared_and_the_one_that_decides_is_found(tmp_path: Path) -> None:
    """The map is made to point at a corner, but the network looks at the opposite one: behaviour decides."""
    net = Corner()
    with torch.no_grad():
        net.weight.copy_(net.weight.flip(0, 1))
    x = torch.rand(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    x[:20, :, -6:, -6:], x[20:, :, -6:, -6:] = 0.1, 0.9
    f = found(grey(net), written(tmp_path / "p", x, ["0"] * 20 + ["1"] * 20), method=always_the_corner(tmp_path))
    (row,) = [r for r in tried(f) if r["found by"] == "maps"]
    assert row["shortcut"] == "no"
    assert row["go with it"] == 0
    assert [str(r["suspect"])[:12] for r in tried(f) if r["shortcut"] == "yes"] == ["bottom right"]
    assert f.verdict == "fail"


class Around(nn.Module):
    """Says what the border is (bright or dark), or what the middle is."""

    def __init__(self, border: bool) -> None:
        super().__init__()
        mask = torch.ones(SIDE, SIDE)
        mask[8:24, 8:24] = 0
        self.mask = nn.Parameter((mask if border else 1 - mask) / 100)

    def forward(self, x: Tensor) -> Tensor:
        z = ((x.mean(1) - 0.5) * self.mask).sum((1, 2))
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize("border", [True, False])
def test_surroundings_that_decide_are_found_where_objects_are_annotated(tmp_path: Path, border: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(48, 3, SIDE, SIDE, generator=random) * 0.2 + 0.1
    x[24:] += 0.6
    inner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inner[8:24, 8:24] = True
    x = torch.where(inner == border, 1 - x, x)  # what does not decide looks like the other class
    f = found(
        Classifier(Around(border), Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3), ("dark", "light"), "around"),
        written(tmp_path, x, ["dark"] * 24 + ["light"] * 24, [Region(((8.0, 8.0, 24.0, 24.0),))] * 48),
        method="gradient-x-input",
    )
    (row,) = [r for r in tried(f) if r["suspect"] == "the surroundings of the object"]
    assert row["shortcut"] == ("yes" if border else "no")
    assert row["go with it"] == float(border)
    assert row["control"] == 0
    assert f.evidence[0].facts["another picture"] != f.evidence[0].facts["said"]


def test_options_out_of_range_are_refused_with_what_they_may_be(tmp_path: Path) -> None:
    case = Case(grey(Corner()), corners(tmp_path), method="saliency")
    for check in ("shortcuts(largest=0.9)", "shortcuts(bar=1)", "shortcuts(places=0)", "shortcuts(background=0)"):
        with pytest.raises(cs.Refused, match="at least one place"):
            list(run_checks(case, parse_checks(check)))


def test_partners_are_of_another_answer_and_fellows_of_the_same(tmp_path: Path) -> None:
    case = Case(grey(Corner()), corners(tmp_path), method="saliency")
    rows = list(range(40))
    pairs = [
        (i, r, f)
        for part, _, other, same in seeded_partners(case, rows, rows)
        for i, r, f in zip(part, other, same, strict=True)
    ]
    assert [i for i, _, _ in pairs] == rows
    said = case.predicted.tolist()
    assert all(said[i] != said[r] and said[i] == said[f] and i != f for i, r, f in pairs)
    assert len({r for _, r, _ in pairs}) > 10  # not always the same one


class Reddish(nn.Module):
    """Says class 1 where there is more red than green, else class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        z = self.gain * (x[:, 0] - x[:, 1]).mean((1, 2))
        return torch.stack([-z, z], 1)


def test_coloured_pictures_give_their_answer_to_others_along_with_their_colours(tmp_path: Path) -> None:
    """Red or green noise: any picture in the colours of the other class gets its answer, and in its own class's not."""
    light = torch.rand(12, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    tint = torch.tensor([[0.2, 0.8, 0.1]] * 6 + [[0.8, 0.2, 0.1]] * 6).view(12, 3, 1, 1)
    model = Classifier(Reddish(), Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3), ("0", "1"), "known")
    case = Case(model, written(tmp_path, light * tint, ["0"] * 6 + ["1"] * 6), method="saliency")
    found = colour(case, range(12))
    assert found is not None
    assert (found.n, found.carried, found.carried_control) == (12, 12, 0)
    assert found.changed_control == 0  # in the colours of another picture of the same answer


def test_the_nearest_of_those_taught_are_of_its_answer(tmp_path: Path) -> None:
    """Row 0 says class 0: of two lessons just like it the one of class 1 is not shown."""
    case = Case(grey(Corner()), corners(tmp_path / "shown"), method="saliency")
    taught = corners(tmp_path / "taught", 4).pictures
    _, names = nearest_training_pictures(case, 0, None, [(p.path, p.labels[0]) for p in taught])
    assert sorted(name.partition(" ")[0] for name in names) == ["taught/0000.png", "taught/0001.png"]


@pytest.mark.parametrize(
    ("kind", "carried", "control", "status"),
    [
        ("colour", 30, 0, "yes"),
        ("colour", 22, 0, "open"),  # the interval goes over the bar
        ("colour", 22, 22, "no"),  # as much from anywhere
        ("colour", 8, 0, "no"),
        ("surroundings", 8, 0, "yes"),  # no bar, but surely more than the control, and by enough
        ("surroundings", 3, 0, "no"),
        ("surroundings", 8, 4, "open"),
    ],
)
def test_what_is_carried_along_is_judged_by_its_kind(kind: Kind, carried: int, control: int, status: str) -> None:
    nothing = torch.zeros(1, SIDE, SIDE)
    example = Example(0, 0, nothing, 0, nothing, 0)
    trial = Intervention(kind, tuple(range(40)), 0, 0, 0, carried, control, None, example)
    case = Case.__new__(Case)  # asked for places alone
    assert judge_group(case, trial, (), (0.5, 0.1), 1.96).status == status


def test_too_few_pictures_are_not_called_a_pass(tmp_path: Path) -> None:
    f = found(grey(Corner()), corners(tmp_path, 8), method="gradient-x-input")
    assert f.verdict == "note"
    assert f.n == 0


def test_the_same_seed_finds_the_same(tmp_path: Path) -> None:
    pictures = corners(tmp_path)
    one, other = (found(grey(Corner(0.5)), pictures, method="gradient-x-input") for _ in range(2))
    assert one.tables == other.tables
    assert [e.figure.data for e in one.evidence] == [e.figure.data for e in other.evidence]


# What is there is found: trained networks -----------------------------------------------------------------------------


@pytest.mark.parametrize(("mark", "least", "most"), [("own", 1.0, 1.0), ("random", 0.05, 0.15)])
def test_marks_of_the_demonstration_tell_the_class_or_nothing(tmp_path: Path, mark: Mark, least: float, most: float):
    """A mark's place is its left edge, 1 + 3 times the class; at random one in ten is right."""
    files = list(write_digits(tmp_path, mark).rglob("*.png"))
    told = []
    for path in files[::10]:
        row = np.asarray(Image.open(path))[0]
        told.append((row == 255).nonzero()[0].tolist() == [1 + 3 * int(path.parent.name) + k for k in range(3)])
    assert len(files) == 1797
    assert least <= np.mean(told) <= most


@pytest.mark.slow
def test_the_demonstration_needs_no_data_finds_the_mark_and_mends_the_model(tmp_path: Path, run: Any) -> None:
    """README's command, with a folder."""
    ran = run("demo", "shortcut", "-o", tmp_path / "demo", "--json")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    marked, plain, mended = told["models"]
    assert marked["accuracy"] > 0.97
    assert marked["accuracy with random marks"] < 0.5
    assert marked["verdict"] == "fail"
    assert "top" in marked["headline"]
    assert plain["accuracy"] > 0.95
    assert plain["accuracy with random marks"] > 0.9
    assert plain["verdict"] == "pass", plain["headline"]
    evidence = [e for f in Report.read(tmp_path / "demo" / "audit-marked").findings for e in f.evidence]
    facts = [e.facts for e in evidence if "nearest training pictures" in e.facts]
    assert facts
    near = [(str(f.get("said") or f["answer"]), str(f["nearest training pictures"])) for f in facts]
    assert all(n.startswith(f"{said}/") for said, names in near for n in names.split(", "))
    assert all(e.figure.data for e in evidence)
    assert Path(marked["report"]).exists()
    assert list(told) == ["folder", "models", "repair", "comparison"]
    assert mended["accuracy"] > 0.97
    assert mended["accuracy with random marks"] > 0.85
    assert mended["verdict"] != "fail"
    assert Path(told["comparison"]).exists()


def fitted(net: nn.Module, x: Tensor, y: Tensor, epochs: int, labels: int = 10) -> Classifier:
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net((x[rows] - 0.5) * 2), y[rows]).backward()
            optimiser.step()
    pre = Preprocess((28, 28), (0.5,) * x.shape[1], (0.5,) * x.shape[1])
    return Classifier(net.eval(), pre, tuple(map(str, range(labels))), "fitted")


def right(model: Classifier, x: Tensor, y: Tensor) -> float:
    with torch.no_grad(), model.undisturbed():
        return float((model(x).argmax(1) == y).float().mean())


def arrays(name: str) -> dict[str, Tensor]:
    path = DATA / "spurious_mnist" / f"{name}_mnist.npz"
    if not path.exists():
        pytest.skip(f"no {path.name} beside the project")
    with np.load(path) as a:
        out = {k: torch.from_numpy(a[k]) for k in a.files}
    for k in ("x_train", "x_test"):
        x = out[k].float() / 255
        out[k] = x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)
    return out


def without_decoy(x: Tensor, corner: Tensor) -> Tensor:
    x = x.clone()
    for picture, k in zip(x, corner.tolist(), strict=True):
        top, left = (0 if k < 2 else 24), (24 if k % 2 else 0)
        picture[:, top : top + 4, left : left + 4] = 0
    return x


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 10))


def pooling() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 48, 5, stride=2), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


@pytest.mark.slow
def test_decoy_digits_right_for_the_wrong_reason_fail_and_the_same_without_decoys_pass(tmp_path: Path) -> None:
    """Ross et al. 2017, arXiv:1703.03717: 784-50-30-10, 64 epochs; theirs is right on 51.6 % with random decoys."""
    a = arrays("decoy")
    x, y, clean = a["x_train"], a["y_train"].long(), without_decoy(a["x_train"], a["corner_train"])
    biased, honest = fitted(dense(), x[:4000], y[:4000], 64), fitted(dense(), clean[:4000], y[:4000], 64)
    assert right(biased, x[4000:], y[4000:]) > 0.95
    assert right(biased, a["x_test"], a["y_test"].long()) < 0.65
    labels = [str(int(k)) for k in y[4000:]]
    f = found(biased, written(tmp_path / "decoy", x[4000:], labels))
    assert f.verdict == "fail"
    named = {str(r["suspect"]).partition(",")[0] for r in tried(f) if r["shortcut"] == "yes"}
    assert len(named) >= 2
    assert named <= {"top left", "top right", "bottom left", "bottom right"}
    assert f.value == pytest.approx(1, abs=0.1)
    g = found(honest, written(tmp_path / "clean", clean[4000:], labels))
    assert g.verdict == "pass", g.headline


@pytest.mark.slow
def test_coloured_digits_right_for_the_wrong_reason_fail_and_the_same_without_colours_pass(tmp_path: Path) -> None:
    a = arrays("colored")
    x, y = a["x_train"], a["y_train"].long()
    light = x.amax(1, keepdim=True)
    light = light / light.flatten(1).amax(1).view(-1, 1, 1, 1)
    clean = light * torch.rand(len(x), 3, 1, 1, generator=torch.Generator().manual_seed(0))
    biased, honest = fitted(pooling(), x[:4000], y[:4000], 2), fitted(pooling(), clean[:4000], y[:4000], 2)
    assert right(biased, x[4000:], y[4000:]) > 0.9
    assert right(biased, a["x_test"], a["y_test"].long()) < 0.5
    labels = [str(int(k)) for k in y[4000:]]
    f = found(biased, written(tmp_path / "coloured", x[4000:], labels))
    assert f.verdict == "fail"
    assert "shortcut, colour" in f.headline
    g = found(honest, written(tmp_path / "clean", clean[4000:], labels))
    assert g.verdict == "pass", g.headline


@pytest.mark.slow
def test_nothing_is_called_a_shortcut_of_the_embedded_model() -> None:
    f = found(cs.load("demo"), demo_pictures())
    assert f.verdict == "pass"
    assert {r["shortcut"] for r in tried(f)} == {"no"}


# The fine print -------------------------------------------------------------------------------------------------------


def test_blurring_the_place_says_what_it_is_worth(tmp_path: Path) -> None:
    """A bright point is lost in the blur, and with it every right answer of its class."""
    net = Corner()
    with torch.no_grad():
        net.weight.zero_()
        net.weight[2, 2] = 1.0
    x = torch.full((40, 1, SIDE, SIDE), 0.4)
    x[20:, :, 2, 2] = 0.9
    f = found(grey(net), written(tmp_path, x, ["0"] * 20 + ["1"] * 20), method="gradient-x-input")
    clusters_of_1 = [r for t in f.tables if t.caption.startswith("Clusters") for r in t.rows if r["answer"] == "1"]
    assert sum(int(r["pictures"]) for r in clusters_of_1) == 20  # type: ignore[arg-type]
    assert {r["right"] for r in clusters_of_1} == {1.0}
    assert {r["right with the place blurred"] for r in clusters_of_1} == {0.0}
    assert sum(float(r["share of the answer"]) for r in clusters_of_1) == pytest.approx(1)  # type: ignore[arg-type]


class Threshold(nn.Module):
    """Two answers by the corner, as sure however bright or dark it is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        z = self.scale * torch.where(x[:, :, 1:5, 1:5].amax((1, 2, 3)) > 0.7, 1.0, -1.0)
        return torch.stack([-z, z], 1)


def test_a_place_that_is_not_felt_when_it_is_erased_is_no_shortcut(tmp_path: Path) -> None:
    """The corner carries every answer along, but erasing it, which is solved from around it, changes no odds."""
    x = torch.rand(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.3
    x[20:, :, :8, :8] = 0.9
    f = found(
        grey(Threshold()), written(tmp_path / "p", x, ["0"] * 20 + ["1"] * 20), method=always_the_corner(tmp_path)
    )
    (row,) = [r for r in tried(f) if r["found by"] == "maps"]
    assert row["carried along"] == 1
    assert row["odds fall further without it"] == 0
    assert row["shortcut"] == "open"
    assert f.verdict == "warn"
