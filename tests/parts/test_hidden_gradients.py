"""A network that hides its gradients instead of mending itself: maps call it clean, erasing and swapping do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.place_scan import (
    boxes_side_by_side,
    carrying_places,
    covers_half,
    moved_by_half,
    without_overlap,
)
from clearsight.auditing.spray import area, inside, overlap
from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.annotations import Region
from clearsight.data.datasets import Picture, Pictures
from clearsight.reporting.findings import Finding
from clearsight.testing import training_step
from clearsight.training.losses import guided_loss

SIDE, PATCH = 32, 4
MARK = (slice(2, 2 + PATCH), slice(25, 25 + PATCH))  # rows and columns of the decoy
GRADIENTS = ("saliency", "gradient-x-input", "smooth-grad(noise=0.05, samples=8)")


class Hidden(nn.Module):
    """Two classes: a bar in the middle, upright or lying, and a decoy that is bright or dark.

    The decoy goes through a step so steep that it is flat wherever a picture is: what it adds to the logits is ten
    times what the bar adds, and its gradient is 0.  open: as much through a slope instead, which every map shows.
    none: the bar alone.
    """

    def __init__(self, decoy: str) -> None:
        super().__init__()
        self.decoy = decoy
        bar = torch.zeros(SIDE, SIDE)
        bar[8:24, 14:18], bar[14:18, 8:24] = 1 / 64, -1 / 64
        bar[14:18, 14:18] = 0
        self.bar = nn.Parameter(bar)

    def forward(self, x: Tensor) -> Tensor:
        z = (x[:, 0] * self.bar).sum((1, 2))
        bright = x[:, 0, MARK[0], MARK[1]].mean((1, 2)) - 0.5
        if self.decoy == "hidden":
            z = z + 10 * torch.tanh(400 * bright)
        elif self.decoy == "open":
            z = z + 25 * bright
        return torch.stack([-z, z], 1)


def bars(root: Path, n: int = 60, *, boxes: bool = False) -> Pictures:
    """Bars on faint noise, each with a decoy that is dark where the bar lies and bright where it stands.

    boxes: around the bars, as annotations.
    """
    random = torch.Generator().manual_seed(0)
    root.mkdir(parents=True, exist_ok=True)
    pictures = []
    for i in range(n):
        x = torch.rand(SIDE, SIDE, generator=random) * 0.2
        upright = i % 2
        x[(slice(8, 24), slice(14, 18)) if upright else (slice(14, 18), slice(8, 24))] += 0.6
        x[MARK] = 0.9 if upright else 0.1
        path = root / f"{i:03}.png"
        Image.fromarray((x * 255).round().byte().numpy()).save(path)
        label = "upright" if upright else "lying"
        regions = (Region(((8.0, 8.0, 24.0, 24.0),)),) if boxes else None
        pictures.append(Picture(path, path.name, (label,), regions))
    return Pictures(root, tuple(pictures))


def model(decoy: str) -> Classifier:
    return Classifier(Hidden(decoy), Preprocess((SIDE, SIDE), (0.0,), (1.0,)), ("lying", "upright"), decoy)


def found(decoy: str, pictures: Pictures, method: str) -> Finding:
    (finding,) = run_checks(Case(model(decoy), pictures, method=method), parse_checks("shortcuts"))
    return finding


def on_the_decoy(decoy: str, pictures: Pictures, method: str) -> float:
    """The share of the maps' absolute values that lies on the decoy."""
    maps = cs.explain(model(decoy), cs.pixels(model(decoy), pictures), method).maps.abs()
    return float(maps[:, MARK[0], MARK[1]].sum() / maps.sum())


def tried(finding: Finding) -> list[dict[str, Any]]:
    return [dict(r) for t in finding.tables if t.caption.startswith("What was tried") for r in t.rows]


def test_the_decoy_decides_and_is_nowhere_in_the_gradients(tmp_path: Path) -> None:
    """What it does is as plain as where the decoy is used openly; what maps show of it is nothing."""
    pictures = bars(tmp_path)
    x = cs.pixels(model("none"), pictures)
    for decoy, moved in (("hidden", 1.0), ("open", 1.0), ("none", 0.0)):
        with torch.no_grad():
            before, after = (model(decoy)(pixels).argmax(1) for pixels in (x, swapped(x)))
        assert float((before != after).float().mean()) == moved
    for method in GRADIENTS:
        assert on_the_decoy("hidden", pictures, method) == 0
        assert on_the_decoy("open", pictures, method) > 0.2


@pytest.mark.parametrize("method", ["saliency", "gradient-x-input"])
def test_swapping_catches_it_whatever_the_maps_say(tmp_path: Path, method: str) -> None:
    """No map leads to the decoy; put on pictures of the other answer it brings its own along, always."""
    f = found("hidden", bars(tmp_path), method)
    assert f.verdict == "fail", f.headline
    assert f.headline.startswith("The model takes a shortcut, top right")
    places = tried(f)
    assert {r["found by"] for r in places if r["shortcut"] == "yes"} == {"a scan of places"}
    assert max(r["carried along"] for r in places if r["shortcut"] == "yes") == 1
    assert not [r for r in places if r["found by"] == "maps" and str(r["suspect"]).startswith("top right")]


def test_used_openly_it_is_found_by_the_maps(tmp_path: Path) -> None:
    f = found("open", bars(tmp_path), "saliency")
    assert f.verdict == "fail", f.headline
    assert next(r["found by"] for r in tried(f) if r["shortcut"] == "yes") == "maps"


def learnt(pictures: Pictures, *, hides: bool) -> Classifier:
    """A network of eight units that has learnt what the decoy says, against the bar where the two disagree.

    hides: guided, beside its labels, to have its gradients anywhere but on the decoy.  There is one way to do both.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.Tanh(), nn.Linear(8, 2))
    of = Classifier(net, Preprocess((SIDE, SIDE), (0.0,), (1.0,)), ("lying", "upright"), "learnt")
    x = cs.pixels(of, pictures)
    x = torch.cat([x, swapped(x)])
    y = (x[:, 0, MARK[0], MARK[1]].mean((1, 2)) > 0.5).long()
    inside = torch.ones_like(x)
    inside[:, :, MARK[0], MARK[1]] = 0
    guide, labels = parse("energy(explainer=saliency, weight=10)", "guides"), torch.eye(2)[y]
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(250):
        step, at = training_step(of), x.clone().requires_grad_()
        penalty = guided_loss(guide, step, at, labels, inside) if hides else torch.zeros(())
        optimiser.zero_grad()
        (penalty + step.cross_entropy(step.forward(at), labels).mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.eval()
    return of


def swapped(x: Tensor) -> Tensor:
    """Pictures whose decoy is dark where it was bright."""
    other = x.clone()
    other[:, :, MARK[0], MARK[1]] = 1 - other[:, :, MARK[0], MARK[1]]
    return other


def test_a_network_that_was_trained_to_hide_its_gradients_is_caught_by_swapping(tmp_path: Path) -> None:
    """Guided away from the decoy while its labels need it, it hides it: the maps call it clean, its answers do not."""
    pictures = bars(tmp_path)
    marked = PATCH**2 / SIDE**2  # the share of a map that would lie there if it lay everywhere alike
    networks = {hides: learnt(pictures, hides=hides) for hides in (False, True)}
    for hides, of in networks.items():
        x = cs.pixels(of, pictures)
        with torch.no_grad():
            assert bool((of(x).argmax(1) != of(swapped(x)).argmax(1)).all())  # the decoy alone decides
        for explainer in GRADIENTS:
            maps = cs.explain(of, x, explainer).maps.abs()
            share = float(maps[:, MARK[0], MARK[1]].sum() / maps.sum())
            assert share < marked / 5 if hides else share > 10 * marked
    (finding,) = run_checks(Case(networks[True], pictures, method="saliency"), parse_checks("shortcuts"))
    assert finding.verdict == "fail"
    assert finding.headline.startswith("The model takes a shortcut, top right")
    carried = [r for r in tried(finding) if r["shortcut"] == "yes"]
    assert {r["found by"] for r in carried} == {"a scan of places"}
    assert max(r["carried along"] for r in carried) == 1


def test_what_surrounds_annotated_objects_catches_it_too(tmp_path: Path) -> None:
    f = found("hidden", bars(tmp_path, boxes=True), "saliency")
    assert f.verdict == "fail"
    assert {r["suspect"]: r["shortcut"] for r in tried(f)}["the surroundings of the object"] == "yes"


def test_without_the_decoy_no_place_is_accused(tmp_path: Path) -> None:
    """The bar decides, in the middle of the picture: its parts are looked at, and are no shortcuts."""
    f = found("none", bars(tmp_path, boxes=True), "saliency")
    assert f.verdict == "pass", f.headline
    assert [r for r in tried(f) if r["found by"] == "a scan of places"]


def test_of_places_that_overlap_the_best_one_is_tried() -> None:
    assert without_overlap([(0, 0, 4, 4), (1, 1, 5, 5), (0, 3, 4, 7), (2, 2, 4, 4)]) == [(0, 0, 4, 4), (0, 3, 4, 7)]


def test_places_lie_side_by_side_over_the_whole_picture() -> None:
    for size in ((32, 32), (28, 28), (224, 224), (5, 3)):
        boxes = boxes_side_by_side(size, 0.05)
        covered = torch.stack([inside(box, size) for box in boxes]).sum(0)
        assert int(covered.min()) >= 1
        assert all(area(box) <= max(0.05 * size[0] * size[1], 1) for box in boxes)
        assert all(0 <= b[0] < b[2] <= size[0] and 0 <= b[1] < b[3] <= size[1] for b in boxes)


def test_the_place_is_found_although_it_lies_across_several(tmp_path: Path) -> None:
    """The best of the boxes, moved by half of itself, holds the decoy."""
    pictures = bars(tmp_path)
    case = Case(model("hidden"), pictures, method="saliency")
    boxes, looked_at = carrying_places(case, range(len(pictures.pictures)), 0.05)
    assert looked_at > 25
    assert len(boxes) <= 3
    decoy = (MARK[0].start, MARK[1].start, MARK[0].stop, MARK[1].stop)
    assert covers_half(boxes[0], decoy)
    assert all(not covers_half(a, b) for a in boxes for b in boxes if a != b)
    assert all(overlap(box, (4, 8, 8, 12)) < 1 for box in moved_by_half((4, 8, 8, 12), (32, 32)))
    assert len(moved_by_half((4, 8, 8, 12), (32, 32))) == 8
    assert len(moved_by_half((0, 0, 7, 7), (32, 32))) == 3
