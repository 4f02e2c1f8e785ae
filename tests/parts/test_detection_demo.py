"""The lesson of `clearsight demo detection`: its boxes, what it counts, and its page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.core.boxes import iou_table, suppress
from clearsight.data.datasets import folder
from clearsight.data.images import eight_bit, open_picture
from clearsight.demos import detection_page as page
from clearsight.demos import region_detectors as ways
from clearsight.demos.detection import WINDOWS, detection
from clearsight.demos.selective_search import FAST, Eye, selective_search
from clearsight.errors import Refused
from clearsight.reporting.html_report import tight

CELLS = Path(__file__).parents[3] / "shared/data/det_bccd"


# Boxes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "side", "step"), [(400, 600, 133, 0.5), (64, 64, 64, 0.25), (90, 50, 8, 1)]
)
def test_windows_are_as_many_as_steps_fit_and_lie_inside(height, width, side, step):
    boxes = ways.windows(height, width, (side,), step)
    apart = round(side * step)
    assert len(boxes) == ((height - side) // apart + 1) * ((width - side) // apart + 1)
    assert (boxes[:, 2:] - boxes[:, :2] == side).all()
    assert boxes.min() == 0
    assert (boxes[:, 3] <= height).all()
    assert (boxes[:, 2] <= width).all()
    assert len(boxes.unique(dim=0)) == len(boxes)


def test_regions_are_pooled_as_by_hand():
    """A map of 4 x 4 that holds 0 to 15: each quarter's mean, and bilinear values between cells."""
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    whole = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert ways.pooled(maps, whole, bins=2, stride=1).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert ways.pooled(maps, 8 * whole, bins=2, stride=8).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    # half a cell to the right of the first quarter: half a step more along the rows
    moved = torch.tensor([[0.5, 0.0, 2.5, 2.0]])
    assert ways.pooled(maps, moved, bins=1, stride=1).item() == 3.0


def test_the_worked_example_of_suppression():
    boxes = torch.tensor(page.EXAMPLE)
    table = iou_table(boxes, boxes)
    assert table[0, 1].item() == pytest.approx(81 / 119)
    assert table[0, 3].item() == pytest.approx(42 / 100)
    assert suppress(boxes, torch.tensor(page.SCORES), page.LIMIT).tolist() == [0, 2, 3]
    told = page.suppression_part()
    assert "81 / 119 = 0.68" in told.words[1]
    assert "A and C and D stay, B goes" in told.figures[0].caption


def test_a_crop_of_the_whole_picture_is_the_picture():
    model = cs.load("demo")
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chance = ways.by_crops(model, x, torch.tensor([[0.0, 0.0, 224.0, 224.0], [10.0, 20.0, 90.0, 80.0]]))
        torch.testing.assert_close(chance[:1], model(x).softmax(1))
    assert (chance[0] - chance[1]).abs().max() > 0.01


def test_the_surest_box_of_each_object_stays():
    model = cs.load("demo")
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 10, 10]])
    chances = torch.zeros(4, 1000)
    chances[[0, 1, 2, 3], [7, 7, 7, 8]] = torch.tensor([0.8, 0.9, 0.6, 0.3])
    found = ways.surest(model, boxes, chances, 0.5, 0.3, 5)
    assert [(f.box, round(f.probability, 2)) for f in found] == [((0, 0, 10, 9), 0.9), ((50, 50, 60, 60), 0.6)]
    assert found[0].label == model.name(7)


# Selective search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eye", FAST, ids=str)
def test_selective_search_finds_a_drawn_square(eye):
    ground = np.full((90, 120, 3), 225, np.uint8)
    ground[20:60, 30:85] = (30, 60, 95)
    boxes = selective_search(ground, eyes=[eye])
    square = torch.tensor([[30, 20, 85, 60]])
    best = float(iou_table(torch.from_numpy(boxes), square).max())
    assert best == 1 if eye.colour else best > 0.9  # texture alone sees the rim as a segment of its own
    assert [0, 0, 120, 90] in boxes.tolist()  # all of it, merged last


def test_neighbours_that_are_alike_merge_first():
    """Three stripes, two of nearly one colour: the box around those two is proposed, that around the other two not."""
    stripes = np.zeros((60, 120, 3), np.uint8)
    stripes[:, :40], stripes[:, 40:80], stripes[:, 80:] = (200, 60, 60), (196, 60, 60), (40, 80, 210)
    told = selective_search(stripes, eyes=[Eye("hsv", 5)]).tolist()
    assert [0, 0, 80, 60] in told
    assert [40, 0, 120, 60] not in told


def test_proposals_lie_inside_differ_and_come_in_a_seeded_order():
    values = _coffee()
    values = values[::2, ::2].copy()
    some = selective_search(values, eyes=FAST[:2], most=50)
    assert len(some) == 50
    assert len(np.unique(some, axis=0)) == 50
    assert some.min() >= 0
    assert (some[:, 2:] <= (values.shape[1], values.shape[0])).all()
    assert ((some[:, 2:] - some[:, :2]) >= 20).all()
    assert (some == selective_search(values, eyes=FAST[:2], most=50)).all()
    assert (some != selective_search(values, eyes=FAST[:2], most=50, seed=1)).any()


@pytest.mark.skipif(not CELLS.exists(), reason="needs the shared pictures of blood cells")
def test_selective_search_finds_more_objects_than_random_boxes():
    data = folder(CELLS / "images", boxes=CELLS / "annotations")
    found, chance, objects = 0, 0, 0
    for seed, picture in enumerate([p for p in data.pictures if p.regions][:2]):
        values = np.asarray(eight_bit(open_picture(picture.path)).convert("RGB"))
        truth = torch.tensor([box for region in picture.regions for box in region.boxes]).double()
        proposals = torch.from_numpy(selective_search(values, eyes=FAST[:2], most=500)).double()
        points = np.random.default_rng(seed).random((len(proposals), 2, 2)) * values.shape[1::-1]
        random = torch.from_numpy(np.concatenate([points.min(1), points.max(1)], axis=1))
        found += int((iou_table(proposals, truth).amax(0) >= 0.5).sum())
        chance += int((iou_table(random, truth).amax(0) >= 0.5).sum())
        objects += len(truth)
    assert objects >= 20
    assert found / objects > 0.5
    assert found > 1.5 * chance


@pytest.mark.parametrize(
    ("given", "words"),
    [({"most": 0}, "most 0"), ({"picture": np.zeros((9, 9), np.uint8)}, r"\(9, 9\) has no three colours")],
)
def test_what_cannot_be_searched_is_refused(given, words):
    with pytest.raises(Refused, match=words):
        selective_search(**({"picture": np.zeros((9, 9, 3), np.uint8)} | given))


# The lesson -----------------------------------------------------------------------------------------------------------


def _coffee() -> np.ndarray:
    from clearsight.data.datasets import open_data

    return np.asarray(open_picture(open_data("demo:coffee").pictures[0].path).convert("RGB"))


@pytest.fixture(scope="module")
def lesson(tmp_path_factory) -> Any:
    """Of a small picture, which passes at a small size."""
    folder = tmp_path_factory.mktemp("lesson")
    Image.fromarray(_coffee()[20:308:3, 60:480:3]).save(folder / "cup & saucer.png")
    side, ways.SIDE = ways.SIDE, 96
    try:
        return detection(folder / "out", picture=str(folder / "cup & saucer.png"), proposals=7)
    finally:
        ways.SIDE = side


def test_every_crop_is_a_pass_and_a_map_is_one(lesson):
    high, wide = 96, 140
    windows = sum(
        ((high - side) // (side // 2) + 1) * ((wide - side) // (side // 2) + 1)
        for side in (round(share * high) for share in WINDOWS)
    )
    told = {s.name: (s.boxes, s.passes) for s in lesson.stages}
    assert told["Sliding window"] == (windows, windows)
    assert told["R-CNN"] == (7, 7)
    assert told["Fast R-CNN"] == (7, 1)
    assert told["Faster R-CNN"] == (7, 1)
    assert told["One shot"] == (12 * 16 + 6 * 8, 1)  # the places of strides 8 and 16 in 96 x 128 pixels
    assert lesson.stage("R-CNN").megapixels == pytest.approx(7 * 224**2 / 1e6)
    assert lesson.stage("Fast R-CNN").megapixels == pytest.approx(96 * 128 / 1e6)
    assert [s.trained for s in lesson.stages] == [True, True, True, False, False]
    assert all(s.best is None for s in lesson.stages)  # nobody has drawn its object


def test_the_page_is_one_file_and_says_what_the_terminal_says(lesson):
    html = lesson.page.read_text()
    assert [f.name for f in lesson.page.parent.iterdir()] == ["index.html"]
    assert tight(lesson.verdict) in html
    assert "cup &amp; saucer" in html
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!#|data:|https://(arxiv|doi)\.org/)', html)
    for stage in lesson.stages:
        assert f"<b>{stage.passes}</b>" in html
        assert f"<b>{stage.seconds:.2f}</b>" in html
    assert html.count("<img") + html.count('<svg class="picture"') == 11
    assert lesson.lines()[-1] == str(lesson.page)
    assert json.loads(json.dumps(lesson.as_dict()))["stages"][1]["passes"] == 7


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("detectio",), "did you mean detection"),
        (("shortcut", "--proposals", "3"), "belong to demo detection"),
        (("detection", "--picture", "demo"), "10 pictures"),
    ],
)
def test_what_cannot_be_shown_is_refused(run, words, told, tmp_path):
    ran = run("demo", *words, "-o", tmp_path / "out")
    assert ran.status == 2
    assert told in ran.err


def test_small_pictures_and_no_proposals_are_refused(tmp_path):
    Image.new("RGB", (63, 200)).save(tmp_path / "a.png")
    with pytest.raises(Refused, match="side of 63 pixels"):
        detection(tmp_path / "out", picture=str(tmp_path / "a.png"))
    with pytest.raises(Refused, match="proposals 0"):
        detection(tmp_path / "out", proposals=0)
